# Sharded training: parameters, gradients and optimizer state over all GPUs, block by block, blocks recomputed in the
# backward pass. Goes beside any recipe of a VisionTransformer; docs/fsdp.md says when it pays.
runner_type = 'mim_mm.ShardedRunner'
strategy = dict(
    type='mim_mm.FSDPStrategy',
    blocks=['TransformerEncoderLayer'],
    activation_checkpointing=True,
    # HYBRID_SHARD shards within a node and replicates across nodes: for slow links between nodes.
    model_wrapper=dict(sharding_strategy='FULL_SHARD'),
)
