"""What is added to mmengine around a training: what runs before it, what ends it, optimizers, sharding, hooks."""
