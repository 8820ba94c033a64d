"""Sharded training: the strategy and the runner of it."""
