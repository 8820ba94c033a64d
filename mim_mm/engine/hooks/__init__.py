"""Hooks of a training, one file each."""
