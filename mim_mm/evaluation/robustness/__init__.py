"""How a trained classifier does on other versions of its test set, and how well it knows."""
