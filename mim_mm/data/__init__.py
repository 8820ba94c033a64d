"""Data sets: folders, lists and shards of images, annotations, and the demo sets."""
