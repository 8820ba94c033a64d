"""What runs on the stand-in GPU: one recipe of every family at its real model size, and the tools that use a GPU."""

from dataclasses import dataclass, field

ENCODER, DETECTOR = 'emae/emae_vitb_300e', 'coco/mask_rcnn_vitb_fpn_ms_12e'


@dataclass(frozen=True)
class Family:
    """A recipe of configs/ and what is changed: ``options`` as --cfg-options, ``words`` of the command line."""

    recipe: str
    options: dict = field(default_factory=dict)
    words: tuple = ()
    start: str | None = None  # recipe whose encoder it starts from
    resumed: bool = False  # afterwards once more, from the checkpoint of its first epoch
    more: str = ''  # lines of a config on top of the recipe, with {root!r} for the folder of its images

    @property
    def detects(self) -> bool:
        return self.recipe.startswith('coco/')


ONE_EPOCH = {'train_cfg.max_epochs': 1}
TWICE = {'train_cfg.max_epochs': 2, 'default_hooks.checkpoint.interval': 1}
CLASSES = {'model.head.num_classes': 2, 'val_evaluator.topk': 1}
WATCHED = """custom_hooks = [
    dict(type='mim_mm.QualityHook', data={root!r}, max_train_per_class=4, max_val_per_class=2, batch_size=8, workers=0),
    dict(type='mim_mm.MaskDiagnosticsHook', interval=2),
]"""
# docs/data_loading.md, "Decoding on the GPU"
DECODED = """train_pipeline = [
    dict(type='LazyLoadImageFromFile'), dict(type='CropOnDevice', scale=224, crop_ratio_range=(0.2, 1.0))]
train_dataloader = dict(collate_fn=dict(type='pseudo_collate'), dataset=dict(pipeline=train_pipeline))
model = dict(data_preprocessor=dict(
    _delete_=True, type='DecodingPreprocessor', size=224, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]))
"""

FAMILIES = {
    'emae': Family(ENCODER, ONE_EPOCH),
    'finetune': Family('finetune/vitb_finetune_100e', ONE_EPOCH | CLASSES, start=ENCODER),
    'mask-rcnn-fpn': Family(DETECTOR, ONE_EPOCH, start=ENCODER),
    'mask-rcnn-simple': Family(
        'coco/mask_rcnn_vitb_simple_lsj_100e',
        {'train_cfg.max_iters': 2, 'train_cfg.val_interval': 2, 'param_scheduler.0.end': 1},
        start=ENCODER,
    ),
    'mask-rcnn-swin': Family('coco/mask_rcnn_swinb_fpn_ms_36e', ONE_EPOCH, start='simmim/simmim_swinb_800e'),
    'mask-rcnn-hivit': Family('coco/mask_rcnn_hivitb_fpn_ms_36e', ONE_EPOCH, start='emae/emae_hivitb_300e'),
    'emae-hivit': Family('emae/emae_hivitb_300e', ONE_EPOCH),
    'emae-progressive': Family('emae/emae_vitb_800e_progressive', {'train_cfg.max_epochs': 4}),
    'emae-compiled': Family(ENCODER, ONE_EPOCH, ('--compile',)),
    'emae-watched': Family('emae/emae_vits_300e', ONE_EPOCH, more=WATCHED),
    'emae-decoded': Family('emae/emae_vits_300e', ONE_EPOCH, more=DECODED),
    'mae': Family('mae/mae_vitb_300e', ONE_EPOCH),
    'mae-fp16': Family('mae/mae_vitb_300e', ONE_EPOCH | {'optim_wrapper.type': 'AmpOptimWrapper'}),
    'sbam': Family('sbam/sbam_emae_vitb_300e', ONE_EPOCH),
    'sbam-swin': Family('sbam/sbam_simmim_swinb_800e', ONE_EPOCH),
    'amr': Family('amr/amr_emae_vitb_300e', ONE_EPOCH),
    'amr-mae': Family('amr/amr_mae_vitb_400e', ONE_EPOCH),
    'amr-swin': Family('amr/amr_simmim_swinb_800e', ONE_EPOCH),
    'simmim': Family('simmim/simmim_vitb_800e', ONE_EPOCH),
    'ibot': Family('ibot/ibot_vits_800e', ONE_EPOCH),
    'attmask': Family('attmask/attmask_hint_vits_100e', ONE_EPOCH),
    'dino': Family('dino/dino_vits_100e', ONE_EPOCH),
    'sbam-ibot': Family('sbam/sbam_ibot_vitb_400e', ONE_EPOCH),
    'simmim-swin': Family('simmim/simmim_swinb_800e', ONE_EPOCH),
    'beit': Family('beit/beit_vitb_300e', ONE_EPOCH),
    'cae': Family('cae/cae_vitb_300e', ONE_EPOCH),
    'bootmae': Family('bootmae/bootmae_vitb_800e', ONE_EPOCH),
    'bootmae-amr': Family('amr/amr_bootmae_vitb_800e', ONE_EPOCH),
    'pixio': Family('pixio/pixio_vith_400e', ONE_EPOCH | {'model.backbone.arch': 'base'}),
    'registers': Family(
        'emae/emae_vits_300e', ONE_EPOCH | {'model.backbone.type': 'RegisterViT', 'model.backbone.num_registers': 4}
    ),
    'wide': Family(
        'emae/emae_vits_300e',
        ONE_EPOCH | {'model.backbone.img_size': (128, 512), 'train_dataloader.dataset.pipeline.1.scale': (128, 512)},
    ),
    'convnext': Family('convnets/emae_convnextt_300e', ONE_EPOCH),
    'resnet': Family('convnets/sbam_mae_resnet50_400e', ONE_EPOCH),
    'cmae': Family('cmae/cmae_vitb_300e', ONE_EPOCH),
    'cmae-ddp': Family('cmae/cmae_vitb_300e', ONE_EPOCH, ('--launcher', 'pytorch')),
    'linear': Family('linear/vitb_linear_90e', ONE_EPOCH | CLASSES, start=ENCODER),
    'attentive': Family('linear/vitb_cae_attentive_90e', ONE_EPOCH | CLASSES, start='cae/cae_vitb_300e'),
    'quick-probe': Family(
        'linear/vitb_quick_probe',
        {'train_cfg.max_iters': 4, 'train_cfg.val_interval': 2, 'model.head.num_classes': 2},
        start=ENCODER,
    ),
    'finetune-swin': Family(
        'finetune/swinb_finetune_simmim_100e', ONE_EPOCH | CLASSES, start='simmim/simmim_swinb_800e'
    ),
    'finetune-beit': Family('finetune/vitb_finetune_beit_100e', ONE_EPOCH | CLASSES, start='beit/beit_vitb_300e'),
    'pretrain-fsdp': Family('mae/mae_vitl_800e_fsdp', ONE_EPOCH, ('--launcher', 'pytorch')),
    'finetune-fsdp': Family(
        'finetune/vitl_finetune_50e_fsdp', ONE_EPOCH | CLASSES, ('--launcher', 'pytorch'), 'mae/mae_vitl_800e'
    ),
    'emae-resumed': Family('emae/emae_vits_300e', TWICE, resumed=True),
    'fsdp-resumed': Family(
        'mae/mae_vitl_800e_fsdp', TWICE | {'model.backbone.arch': 'deit-small'}, ('--launcher', 'pytorch'), resumed=True
    ),
    'emae-ddp': Family(ENCODER, ONE_EPOCH, ('--launcher', 'pytorch')),
}

# {images}: train and val in classes; {coco}; {work}: a folder of its own; {encoder}, {detector} and others: weights.
PROBE = 'configs/linear/vitb_linear_90e.py'
FROZEN = f'{PROBE} {{encoder}} --work-dir {{work}} --workers 0 --device cuda'
BENCHMARK = '--device cuda --rounds 1'
COMMANDS = {
    'two-gpus': 'tools/dist_train.sh configs/emae/emae_vits_300e.py 2 --data-root {images} --work-dir {work} '
    '--cfg-options train_cfg.max_epochs=1 train_dataloader.batch_size=4 train_dataloader.num_workers=0 '
    'train_dataloader.persistent_workers=False default_hooks.checkpoint.save_last=False',
    'knn': f'tools/knn.py {FROZEN} --amp bf16',
    'knn-sharded': f'tools/knn.py {FROZEN} --launcher pytorch',
    'lowshot': f'tools/lowshot.py {FROZEN} --fraction 0.5',
    'watch': f'tools/watch.py {{watched}} --data {{images}} --config {PROBE} --once --workers 0 '
    '--max-train-per-class 4 --max-val-per-class 2 --device cuda',
    'test': f'tools/test.py configs/{DETECTOR}.py {{detector}} --work-dir {{work}}',
    'step': f'tools/benchmark.py step {BENCHMARK} --steps 2 --warmup 1 --arch S/16 --parts 1 4 --batch 8',
    'step-compiled': f'tools/benchmark.py step {BENCHMARK} --steps 2 --warmup 1 --arch S/16 --parts 4 --batch 8 '
    '--compile --cuda-graphs --no-peers',
    'curve': 'tools/benchmark.py curve --device cuda --arch S/16 --parts 4 --batch 8 --steps 5 '
    '--picture {work}/curve.png',
    'batch': 'tools/benchmark.py batch --arch B/16 --parts 4',
    'packed': 'tools/benchmark.py packed --device cuda --step --width 192 --layers 2 --batch 16 --ratios 0.6 0.9',
    'probe': f'tools/benchmark.py probe {BENCHMARK} --batch 8 --bank 1000 --steps 1 '
    '--images {images}/train --workers 0',
    'coco': f'tools/benchmark.py coco {BENCHMARK} --images 2 --batch 1 --train 2 --data {{coco}} --workers 0',
}
