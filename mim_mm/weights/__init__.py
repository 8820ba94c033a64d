"""Weights of other projects in, ours out: recognised by their names, rebuilt as a backbone, compared by features."""
