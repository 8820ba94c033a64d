"""Measurements behind ``tools/benchmark.py``: contenders take turns in one process, so that ratios can be trusted."""
