"""data2vec, ViT-L/16, 1600 epochs of ImageNet-1k: the second run of 800 (Baevski et al., ICML 2022).

    tools/dist_train.sh configs/data2vec/data2vec_vitl_1600e.py 8 --cfg-options init=CKPT

Published: fine-tune 86.6, linear 77.3 (as quoted by EMAE).
CKPT is the last checkpoint of data2vec_vitl_800e.py, of which the student is taken, its linear layer too; the teacher
starts as its copy, optimizer and rates anew. As that run but for the teacher's momentum, 0.9999, and a warm-up of 40.
Batch 4096 = 8 x 512. Other batches: --auto-scale-lr.
Cost: as the first run.
"""

_base_ = './data2vec_vitl_800e.py'
model = dict(momentum=0.9999)
param_scheduler = [
    dict(type='WarmupLR', by_epoch=True, end=40, convert_to_iter_based=True, like='beit'),
    dict(type='HalfCosineLR', eta_min=1e-5, by_epoch=True, begin=40, convert_to_iter_based=True, like='beit'),
]
custom_hooks = [
    # Everything but the teacher, which is a little less than half of the model.
    dict(type='LoadPretrainedHook', checkpoint=None, prefix='', target='', skip=['^teacher\\.'], min_loaded=0.5),
    dict(type='MaskDiagnosticsHook', interval=500),
    dict(type='CollapseHook', interval=100),
]
