"""Our MAE and EMAE, and what they are measured against: mmpretrain's MAE and an EMAE made of K passes through it.

All start from the same weights and take the same uint8 batch; each prepares it, draws its masks and steps its optimizer
in its own way, as a user of it would run it. ``loss(images, order)`` with given masks shows that they compute the same.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from mmengine.optim import build_optim_wrapper
from torch import Tensor, nn

from mim_mm.masking import MaskPlan
from mim_mm.registry import MODELS

ARCHS = {'S/16': ('deit-small', 16), 'B/16': ('base', 16), 'L/16': ('large', 16), 'H/14': ('huge', 14)}
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
ADAMW = dict(type='AdamW', lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05)


class Contender:
    """A model with its optimizer that makes whole training steps.

    Args:
        model: the module whose parameters are optimised.
        loss: images (B, 3, H, W) uint8, order (B, K, N) of the patches or None to draw one -> scalar.
        optimizer: config of the optim wrapper.
        dtype: bfloat16 (autocast) or float32.
    """

    def __init__(self, model: nn.Module, loss: Callable[..., Tensor], optimizer: dict, dtype: torch.dtype) -> None:
        self.model, self._loss, self.dtype = model, loss, dtype
        self.device_type = next(model.parameters()).device.type
        self.wrapper = build_optim_wrapper(model, copy.deepcopy(optimizer))

    def loss(self, images: Tensor, order: Tensor | None = None) -> Tensor:
        with torch.autocast(self.device_type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            return self._loss(images, order)

    def step(self, images: Tensor) -> Tensor:
        """Forward, backward, optimizer; the loss stays on the device."""
        loss = self.loss(images)
        loss.backward()
        self.wrapper.step()
        self.wrapper.zero_grad()
        return loss.detach()


def model_config(arch: str | dict, parts: int, size: int, patch: int, decoder: dict | None = None) -> dict:
    """Our recipe's model: MAE for ``parts`` = 1, else EMAE with that many."""
    return dict(
        type='EMAE' if parts > 1 else 'MAE',
        backbone=dict(type='mmpretrain.VisionTransformer', arch=arch, img_size=size, patch_size=patch, out_type='raw'),
        masker=dict(type='ParallelMasking', num_parts=parts) if parts > 1 else dict(type='RandomMasking', ratio=0.75),
        decoder=dict(type='MAEDecoder', fp32_head=parts > 1, **(decoder or {})),
        data_preprocessor=dict(type='ImgDataPreprocessor', mean=MEAN, std=STD, non_blocking=True),
    )


def ours(
    cfg: dict, dtype: torch.dtype, device: torch.device, compiled: str | bool = False, optimizer: dict | None = None
) -> Contender:
    """Our step: merged groups, fused AdamW; ``compiled`` is True or a mode of ``torch.compile``."""
    torch.manual_seed(0)
    model = MODELS.build(copy.deepcopy(cfg)).to(device)
    if compiled:
        mode = None if compiled is True else compiled
        model.captured = torch.compile(model.loss_under_plan, fullgraph=True, dynamic=False, mode=mode)

    def loss(images: Tensor, order: Tensor | None) -> Tensor:
        inputs = model.data_preprocessor(dict(inputs=images), True)['inputs']
        if order is None:
            out = model.loss(inputs)
        else:
            plan = _given_plan(model, order)
            tokens = model.encoder.embed(inputs)
            out = (model.captured or model.loss_under_plan)(inputs, tokens, plan).losses
        return sum(value for name, value in out.items() if name.startswith('loss'))

    wrapper = dict(
        optimizer=optimizer or dict(ADAMW, fused=True),
        constructor='mim_mm.LayerDecayConstructor',
        paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0, no_decay=[]),
    )
    return Contender(model, loss, wrapper, dtype)


def _given_plan(model: nn.Module, order: Tensor):
    length = model.masker(order.new_zeros(1, order.shape[-1], 1).float()).num_visible
    return MaskPlan(order, length, partition=order.shape[1] > 1)


def mmpretrain_mae(cfg: dict, weights: dict, device: torch.device) -> nn.Module:
    """mmpretrain's MAE of the same size with our weights."""
    backbone, decoder = cfg['backbone'], cfg['decoder']
    size, patch = backbone['img_size'], backbone['patch_size']
    encoder = dict(type='mmpretrain.MAEViT', arch=copy.deepcopy(backbone['arch']), img_size=size, patch_size=patch)
    neck = dict(
        type='mmpretrain.MAEPretrainDecoder',
        num_patches=(size // patch) ** 2,
        patch_size=patch,
        in_chans=3,
        embed_dim=weights['backbone.cls_token'].shape[-1],
        decoder_embed_dim=decoder.get('embed_dims', 512),
        decoder_depth=decoder.get('depth', 8),
        decoder_num_heads=decoder.get('num_heads', 16),
    )
    loss = dict(type='mmpretrain.PixelReconstructionLoss', criterion='L2')
    head = dict(type='mmpretrain.MAEPretrainHead', norm_pix=True, patch_size=patch, loss=loss)
    preprocessor = dict(type='mmpretrain.SelfSupDataPreprocessor', mean=MEAN, std=STD, to_rgb=False)
    model = MODELS.build(
        dict(type='mmpretrain.MAE', backbone=encoder, neck=neck, head=head, data_preprocessor=preprocessor)
    )
    state = {k.replace('decoder.', 'neck.', 1) if k.startswith('decoder.') else k: v for k, v in weights.items()}
    wanted = model.state_dict()
    state = {k: v for k, v in state.items() if k in wanted}
    missing = sorted(set(wanted) - set(state))
    if missing:
        raise RuntimeError(f"mmpretrain's MAE has parameters that ours lacks, so they cannot be compared: {missing}")
    model.load_state_dict(state)
    return model.to(device)


class GivenMask:
    """Stands in for ``random_masking`` of mmpretrain's backbone where the masks are given (as its method returns)."""

    def __init__(self, order: Tensor, visible: int) -> None:
        self.order, self.visible = order, visible

    def __call__(self, x: Tensor, ratio: float):
        order = self.order
        mask = torch.ones(order.shape, device=x.device).scatter(1, order[:, : self.visible], 0)
        keep = order[:, : self.visible, None].expand(-1, -1, x.shape[-1])
        return x.gather(1, keep), mask, order.argsort(dim=1)


def mmpretrain_contender(cfg: dict, weights: dict, dtype: torch.dtype, device: torch.device) -> Contender:
    """mmpretrain's MAE, its preprocessor, DataSamples, and its recipe's optimizer: a group a tensor, plain AdamW."""
    from mmpretrain.structures import DataSample

    model = mmpretrain_mae(cfg, weights, device)

    def loss(images: Tensor, order: Tensor | None) -> Tensor:
        data = model.data_preprocessor(dict(inputs=images, data_samples=[DataSample() for _ in images]), True)
        inputs = data['inputs']
        backbone = model.backbone
        if order is not None:
            visible = int(order.shape[-1] * (1 - backbone.mask_ratio))
            backbone.random_masking = GivenMask(order[:, 0], visible)
        try:
            return model.loss(inputs, data['data_samples'])['loss']
        finally:
            backbone.__dict__.pop('random_masking', None)

    return Contender(model, loss, mmpretrain_optimizer(), dtype)


def mmpretrain_optimizer() -> dict:
    keys = ('ln', 'bias', 'pos_embed', 'mask_token', 'cls_token')
    return dict(optimizer=ADAMW, paramwise_cfg=dict(custom_keys={key: dict(decay_mult=0.0) for key in keys}))


def naive_emae(cfg: dict, weights: dict, dtype: torch.dtype, device: torch.device) -> Contender:
    """EMAE as one would first write it: K passes through mmpretrain's MAE, then the (B, K, K, N, P) tensor of pairs."""
    model = mmpretrain_mae(cfg, weights, device)
    parts, masker = cfg['masker']['num_parts'], MODELS.build(copy.deepcopy(cfg['masker']))

    def loss(images: Tensor, order: Tensor | None) -> Tensor:
        inputs = model.data_preprocessor(dict(inputs=images, data_samples=[]), True)['inputs']
        count = model.backbone.num_patches
        if order is None:
            order = masker(inputs.new_zeros(len(inputs), count, 1)).order
        whole, predictions, masks = 0.0, [], []
        for part in range(parts):
            model.backbone.random_masking = GivenMask(order[:, part], count // parts)
            latent, mask, restore = model.backbone(inputs)
            pred = model.neck(latent, restore)
            whole = whole + model.head.loss(pred, inputs, mask) / parts
            predictions.append(pred.float())
            masks.append(mask)
        del model.backbone.random_masking
        return whole + pairwise_consistency(torch.stack(predictions, 1), torch.stack(masks, 1))

    return Contender(model, loss, mmpretrain_optimizer(), dtype)


def pairwise_consistency(pred: Tensor, mask: Tensor) -> Tensor:
    """The definition with all pairs at once: pred (B, K, N, P), mask (B, K, N), 1 = hidden."""
    both = mask[:, :, None] * mask[:, None]  # (B, K, K, N)
    distance = (pred.detach()[:, :, None] - pred[:, None]).abs() + (pred[:, :, None] - pred.detach()[:, None]).abs()
    upper = torch.ones_like(both[0, :, :, 0]).triu(1)[None, :, :, None]  # each pair once
    both = both * upper
    return (distance.mean(-1) * both).sum() / both.sum().clamp(min=1)
