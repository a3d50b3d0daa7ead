"""What differs between two recordings, or between two files of state."""

from nondet_probe.probe.differ.traces import diff_traces

__all__ = ["diff_traces"]
