"""One method, one file, read top to bottom: plan, encode, decode, target, loss."""
