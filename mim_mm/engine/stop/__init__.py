"""The end of a run, planned or not: signals, checkpoints, and resuming to the bit."""
