"""What differs between two recordings, or between two files of state."""
