"""Sweeps: a grid of options, each run as the chain runs a stage."""
