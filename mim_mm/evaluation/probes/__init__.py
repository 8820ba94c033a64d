"""Probes: heads that are trained on a frozen encoder."""
