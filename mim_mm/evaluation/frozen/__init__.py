"""Frozen features and what is measured on them without training: k-NN, low-shot."""
