"""Comparisons: arms that differ in one thing, checked for being fair, run with several seeds."""
