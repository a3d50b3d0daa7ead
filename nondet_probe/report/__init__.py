"""Records to words, tables, pictures and one HTML file; starts no run."""

from nondet_probe.report.html import write_report
from nondet_probe.report.words import outcome, verdict

__all__ = ["outcome", "verdict", "write_report"]
