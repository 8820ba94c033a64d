"""The demo: EMAE pretraining and transfer on handwritten digits, beside the same downstream recipes from scratch.

    python tools/make_demo_data.py && tools/transfer.py configs/chains/demo.py --jobs 2

Two arms with equal recipes and seeds; `scratch` starts from a random encoder (frozen, in its probes). Stages
stand in the order that keeps two cores busy: the long ones first. docs/demo.md has times and what came out.
"""

name = 'demo'
work_dir = 'work_dirs/demo'

_linear = 'configs/demo/linear.py'
_probe = 'configs/demo/quick_probe.py'
_finetune = 'configs/demo/finetune.py'
_mask_rcnn = 'configs/demo/mask_rcnn.py'
_reconstruction = dict(
    name='reconstruction',
    path='reconstruction.png',
    command='python tools/visualize_reconstruction.py {config} {checkpoint} digits/val --out {path}',
)
_detections = dict(
    name='detections',
    path='detections.png',
    command='python tools/draw_detections.py {config} {checkpoint} --out {path}',
)
_knn = dict(
    name='knn',
    path='knn.json',
    command='python tools/knn.py {config} {checkpoint} --work-dir {work_dir} --resize 32 --crop 32 --workers 0',
)

stages = dict(
    pretrain=dict(kind='pretrain', config='configs/demo/pretrain_emae.py', arm='emae', artifacts=[_reconstruction]),
    coco_scratch=dict(kind='coco', config=_mask_rcnn, init=None, arm='scratch', artifacts=[_detections]),
    coco_emae=dict(kind='coco', config=_mask_rcnn, init='pretrain', arm='emae', artifacts=[_detections]),
    finetune_scratch=dict(kind='finetune', config=_finetune, init=None, arm='scratch'),
    finetune_emae=dict(kind='finetune', config=_finetune, init='pretrain', arm='emae'),
    probe_scratch=dict(kind='probe', config=_probe, init=None, arm='scratch', seeds=[0, 1, 2], artifacts=[_knn]),
    probe_emae=dict(kind='probe', config=_probe, init='pretrain', arm='emae', seeds=[0, 1, 2], artifacts=[_knn]),
    linear_scratch=dict(kind='linear', config=_linear, init=None, arm='scratch', seeds=[0, 1, 2]),
    linear_emae=dict(kind='linear', config=_linear, init='pretrain', arm='emae', seeds=[0, 1, 2]),
    report=dict(kind='report'),
)
