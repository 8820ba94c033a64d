"""Mistakes of a config, found before anything is built: keys, argument names, ranges, relations, resuming."""
