"""Optimizers, learning rates, parameter groups and precision."""
