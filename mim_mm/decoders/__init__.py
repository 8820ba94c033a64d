"""Decoders: from the latent of the visible patches to a prediction of the hidden ones."""
