"""Memory against the tensors that autograd really keeps, and against sums worked out by hand."""

import pytest
import torch
from mmengine.config import Config
from tiny import DECODER, VIT, build, images, total_loss

from mim_mm.compat.paths import configs_root
from mim_mm.cost import ModuleCost, Work, work_of
from mim_mm.cost.memory import checkpoint_bytes, checkpoints_kept, memory, optimizer_states
from mim_mm.encoders import fused as attention


def kept_bytes(module, run) -> tuple[int, int]:
    """Bytes of distinct storages that the backward pass of ``run()`` in bf16 holds: activations, casts of weights."""
    weights = {p.untyped_storage().data_ptr() for p in module.parameters()}
    sizes = {tuple(sorted(p.shape)) for p in module.parameters() if p.ndim in (2, 4)}
    found, casts = {}, {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept = casts if tuple(sorted(tensor.shape)) in sizes else found
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # keeps the tensor, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        with torch.autocast('cpu', torch.bfloat16):
            loss = run()
    assert loss.requires_grad
    return sum(size for size, _ in found.values()), sum(size for size, _ in casts.values())


@pytest.mark.parametrize('kind', ['MAE', 'EMAE'])
def test_what_is_kept_is_what_autograd_keeps(kind, monkeypatch):
    """On real images on a CPU, whose attention keeps a sum a token; a GPU's rounds tokens up to 32, here from 17."""
    monkeypatch.setattr(attention, '_better_in_fp32', lambda x: False)  # as on a GPU
    backbone = dict(VIT, arch=dict(embed_dims=64, num_layers=3, num_heads=4, feedforward_channels=256), img_size=64)
    masker = dict(type='ParallelMasking', num_parts=4) if kind == 'EMAE' else dict(type='RandomMasking', ratio=0.75)
    model = build(kind, masker, backbone)
    batch = images(8, 64)
    kept, casts = kept_bytes(model, lambda: total_loss(model.loss(batch)))
    work = work_of(dict(model=dict(type=kind, backbone=backbone, masker=masker, decoder=DECODER),
                        optim_wrapper=dict(type='AutocastOptimWrapper')))  # fmt: skip
    assert 8 * work.saved == pytest.approx(kept, rel=0.1)
    assert work.derived == pytest.approx(casts, rel=1e-3)


def test_a_block_by_hand():
    """D = 768, F = 3072, 50 tokens: what 12 blocks keep in bf16 with fused attention.

    The residual stream is fp32, so the inputs of both norms take 4 bytes a value; the inputs of qkv (D), the qkv (3 D),
    the output of the attention (D), the inputs of fc1 (D), GELU (F) and fc2 (F) take 2.
    """
    cfg = Config.fromfile(str(configs_root() / 'mae' / 'mae_vitb_800e.py'))._cfg_dict.to_dict()
    by_hand = 12 * 50 * (8 * 768 + 2 * (6 * 768 + 2 * 3072))
    assert work_of(cfg)['backbone.layers'].saved == pytest.approx(by_hand, rel=0.03)


ADAMW = dict(optim_wrapper=dict(type='AutocastOptimWrapper', optimizer=dict(type='AdamW')))


def test_sum_by_hand():
    """1000 trained and 500 frozen parameters; 70 bytes an image kept by the first, 30 by the second at work."""
    parts = (ModuleCost('a', 1.0, 2.0, 1000, 1000, saved=70), ModuleCost('b', 1.0, 0.0, 500, working=30))
    work = Work('w', parts, (2, 2), derived=3000)
    found = memory(work, ADAMW, 2, 1)
    assert found['parameters'] == 6000 and found['gradients'] == 4000 and found['optimizer'] == 8000
    assert found['casts'] == 3000 and found['activations'] == 2 * (100 + 4 * 3 * 5)
    assert found['total'] == sum(v for k, v in found.items() if k != 'total')
    assert memory(work, ADAMW, 2, 8)['gradients'] == 8000  # DDP's buckets
    assert checkpoint_bytes(work, ADAMW) == 6000 + 8000


@pytest.mark.parametrize('optimizer, states', [
    (dict(type='AdamW'), 2), (dict(type='SGD', lr=1), 0), (dict(type='SGD', momentum=0.9), 1), (dict(type='LARS'), 1),
])  # fmt: skip
def test_optimizer_states(optimizer, states):
    assert optimizer_states(dict(optim_wrapper=dict(optimizer=optimizer))) == states
    if optimizer['type'] in ('AdamW', 'SGD'):
        weight = torch.nn.Parameter(torch.ones(5))
        weight.grad = torch.ones(5)
        built = getattr(torch.optim, optimizer['type'])([weight], **{k: v for k, v in optimizer.items() if k != 'type'})
        built.step()
        tensors = [v for v in built.state[weight].values() if torch.is_tensor(v) and v.numel() == 5]
        assert len(tensors) == states


@pytest.mark.parametrize(
    'hook, kept',
    [
        (dict(interval=10), 10),
        (dict(interval=30), 4),  # 30, 60, 90 and the last
        (dict(interval=10, max_keep_ckpts=3), 4),  # the oldest goes after the newest is there
        (dict(interval=10, max_keep_ckpts=3, save_best='acc'), 5),
        (dict(interval=500, by_epoch=False, max_keep_ckpts=-1), 2),
        (dict(interval=-1), 1),
    ],
)
def test_checkpoints_kept(hook, kept):
    assert checkpoints_kept(dict(default_hooks=dict(checkpoint=hook)), epochs=100, iterations=1000) == kept
