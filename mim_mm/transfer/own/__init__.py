"""Own data, own encoders, own code: from folders and annotations to the configs of a chain."""
