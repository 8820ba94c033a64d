# Runtime of the recipes that start from a pretrained encoder.
_base_ = './default_runtime.py'

# The pretrained encoder: a checkpoint file, or the work dir of a pretraining (its last checkpoint). LoadPretrainedHook
# reads it; None: the run starts from random weights. tools/train.py RECIPE --cfg-options init=CKPT
init = None
