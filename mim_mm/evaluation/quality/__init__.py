"""The quality of an encoder while it is pretrained: measures, the hook, its log, the watch beside a run."""
