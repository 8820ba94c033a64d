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
    waits: int = 0  # of the host for the device, in an iteration that logs nothing; with DETECTING and ON_DDP at most

    @property
    def detects(self) -> bool:
        return self.recipe.startswith('coco/')

    @property
    def segments(self) -> bool:
        return self.recipe.startswith('seg/')


# What mmdet reads of 2 images: numbers of boxes that decide shapes. It does not grow with the number of objects.
DETECTING = 110
# torch times the first ten iterations of DDP, and one of a hundred after that.
ON_DDP = 12
ONE_EPOCH = {'train_cfg.max_epochs': 1}
GUIDED = ONE_EPOCH | {'model.masker.random_epochs': 0}  # past the warm-up of random masks
TWICE = {'train_cfg.max_epochs': 2, 'default_hooks.checkpoint.interval': 1}
READS_BACKBONE = {'custom_hooks.0.prefix': 'backbone.'}
# mmseg's sliding windows assert on a number from the device, which means nothing here: square images, whole.
SEGMENTS = {
    'train_cfg.max_iters': 4, 'train_cfg.val_interval': 4, 'param_scheduler.0.end': 1, 'param_scheduler.1.begin': 1,
    'model.test_cfg.mode': 'whole',
}  # fmt: skip
CLASSES = {'model.head.num_classes': 2, 'val_evaluator.topk': 1}
WATCHED = """custom_hooks = [
    dict(type='mim_mm.QualityHook', data={root!r}, max_train_per_class=4, max_val_per_class=2, batch_size=8, workers=0),
    dict(type='mim_mm.MaskDiagnosticsHook', interval=2),
]"""
LOOKED_AT = "custom_hooks = [dict(type='mim_mm.CollapseHook', interval=1)]\n"
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
    'mask-rcnn-fpn': Family(DETECTOR, ONE_EPOCH, start=ENCODER, waits=DETECTING),
    'mask-rcnn-simple': Family(
        'coco/mask_rcnn_vitb_simple_lsj_100e',
        {'train_cfg.max_iters': 4, 'train_cfg.val_interval': 4, 'param_scheduler.0.end': 1},
        start=ENCODER,
        waits=DETECTING,
    ),
    'mask-rcnn-swin': Family(
        'coco/mask_rcnn_swinb_fpn_ms_36e', ONE_EPOCH, start='simmim/simmim_swinb_800e', waits=DETECTING
    ),
    'mask-rcnn-hivit': Family(
        'coco/mask_rcnn_hivitb_fpn_ms_36e', ONE_EPOCH, start='emae/emae_hivitb_300e', waits=DETECTING
    ),
    # mmsegmentation copies image by image, and its metrics and losses read numbers
    'segment': Family('seg/upernet_vitb_160k', SEGMENTS, start=ENCODER, waits=10),
    'segment-ibot': Family('seg/upernet_vits_ibot_160k', SEGMENTS, start='mae/mae_vits_300e', waits=10),
    'segment-linear': Family('seg/linear_vitb_160k', SEGMENTS, start=ENCODER, waits=8),
    'emae-hivit': Family('emae/emae_hivitb_300e', ONE_EPOCH),
    'emae-progressive': Family('emae/emae_vitb_800e_progressive', {'train_cfg.max_epochs': 4}),
    'emae-compiled': Family(ENCODER, ONE_EPOCH, ('--compile',)),
    'emae-watched': Family('emae/emae_vits_300e', ONE_EPOCH, more=WATCHED, waits=11),
    'emae-decoded': Family('emae/emae_vits_300e', ONE_EPOCH, more=DECODED, waits=6),
    'dino-watched': Family('dino/dino_vits_100e', ONE_EPOCH, more=LOOKED_AT, waits=2),
    'mae': Family('mae/mae_vitb_300e', ONE_EPOCH),
    'mae-fp16': Family('mae/mae_vitb_300e', ONE_EPOCH | {'optim_wrapper.type': 'AmpOptimWrapper'}),
    'sbam': Family('sbam/sbam_emae_vitb_300e', GUIDED),
    'sbam-swin': Family('sbam/sbam_simmim_swinb_800e', GUIDED),
    'amr': Family('amr/amr_emae_vitb_300e', GUIDED, waits=1),
    'amr-mae': Family('amr/amr_mae_vitb_400e', GUIDED, waits=1),
    'amr-swin': Family('amr/amr_simmim_swinb_800e', GUIDED, waits=1),
    'simmim': Family('simmim/simmim_vitb_800e', ONE_EPOCH),
    'ibot': Family('ibot/ibot_vits_800e', ONE_EPOCH),
    'attmask': Family('attmask/attmask_hint_vits_100e', ONE_EPOCH),
    'dino': Family('dino/dino_vits_100e', ONE_EPOCH),
    'masked-dino': Family(
        'dino/dino_masked_low_vits_100e',
        ONE_EPOCH | {'model.masker.ratio': 0.3, 'model.masker.hide_prob': 0.5, 'model.restore_weight': 1.0},
    ),
    'mocov3': Family('mocov3/mocov3_vits_300e', ONE_EPOCH),
    'msn': Family('msn/msn_vitb_600e', ONE_EPOCH),
    'sbam-ibot': Family('sbam/sbam_ibot_vitb_400e', ONE_EPOCH),
    'simmim-swin': Family('simmim/simmim_swinb_800e', ONE_EPOCH),
    'beit': Family('beit/beit_vitb_300e', ONE_EPOCH),
    'cae': Family('cae/cae_vitb_300e', ONE_EPOCH),
    'bootmae': Family('bootmae/bootmae_vitb_800e', ONE_EPOCH),
    'ijepa': Family('ijepa/ijepa_vitb_600e', ONE_EPOCH),
    'data2vec': Family('data2vec/data2vec_vitb_800e', ONE_EPOCH),
    'data2vec2': Family('data2vec/data2vec2_vitb_75e', ONE_EPOCH | {'model.masker.num_parts': 2}),
    'linear-ijepa': Family(
        'linear/vitb_ijepa_50e', ONE_EPOCH | CLASSES | READS_BACKBONE, start='ijepa/ijepa_vitb_600e'
    ),
    'bootmae-amr': Family('amr/amr_bootmae_vitb_800e', GUIDED, waits=1),
    'pixio': Family('pixio/pixio_vith_400e', ONE_EPOCH | {'model.backbone.arch': 'base'}),
    'registers': Family(
        'emae/emae_vits_300e', ONE_EPOCH | {'model.backbone.type': 'RegisterViT', 'model.backbone.num_registers': 4}
    ),
    'wide': Family(
        'emae/emae_vits_300e',
        ONE_EPOCH | {'model.backbone.img_size': (128, 512), 'train_dataloader.dataset.pipeline.1.scale': (128, 512)},
    ),
    'convnext': Family('convnets/emae_convnextt_300e', ONE_EPOCH),
    'resnet': Family('convnets/sbam_mae_resnet50_400e', GUIDED),
    'cmae': Family('cmae/cmae_vitb_300e', ONE_EPOCH),
    'cmae-ddp': Family('cmae/cmae_vitb_300e', ONE_EPOCH, ('--launcher', 'pytorch'), waits=ON_DDP),
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
    'emae-ddp': Family(ENCODER, ONE_EPOCH, ('--launcher', 'pytorch'), waits=ON_DDP),
    'emae-compiled-ddp': Family('emae/emae_vits_300e', ONE_EPOCH, ('--compile', '--launcher', 'pytorch'), waits=ON_DDP),
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
    'label-free': f'tools/label_free.py {FROZEN} --images {{images}}/train --views 2',
    'transfer-sets': f'tools/transfer_sets.py {FROZEN} --sets a={{images}} --k 1',
    'watch': f'tools/watch.py {{watched}} --data {{images}} --config {PROBE} --once --workers 0 '
    '--max-train-per-class 4 --max-val-per-class 2 --device cuda',
    'features': 'tools/features.py {images}/train --encoder {encoder} --config linear/vitb_linear_90e --workers 0 '
    '--out {work}/features.npy --amp bf16 --device cuda',
    'predict': 'tools/predict.py {images}/val --model {classifier} --config finetune/vitb_finetune_100e --device cuda',
    'predict-boxes': f'tools/predict.py {{images}}/val --model {{detector}} --config {DETECTOR} --device cuda',
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
