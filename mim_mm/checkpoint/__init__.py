"""Checkpoints: atomic tensors-only writing, load reports, importers of other weights."""
