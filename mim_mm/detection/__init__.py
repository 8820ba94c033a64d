"""Detection with a plain ViT: the windowed backbone, pyramids from one map, detectors that know their layers."""
