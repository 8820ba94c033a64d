"""Memory by formula against the tensors that autograd really keeps, and against sums worked out by hand."""

import pytest
import torch
from tiny import DECODER, VIT, build, images, total_loss

from mim_mm.cost import work_of
from mim_mm.cost.memory import checkpoint_bytes, checkpoints_kept, memory, optimizer_states
from mim_mm.cost.work import FROZEN, Part, Work, blocks
from mim_mm.encoders import fused as attention


def kept_bytes(module, run, autocast) -> int:
    """Bytes of the distinct storages that the backward pass of ``run()`` holds, weights and their casts left out."""
    weights = {p.untyped_storage().data_ptr() for p in module.parameters()}
    sizes = {tuple(sorted(p.shape)) for p in module.parameters() if p.ndim == 2}
    found = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and tuple(sorted(tensor.shape)) not in sizes:
            found[storage.data_ptr()] = (storage.nbytes(), tensor)  # keeps the tensor, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
            loss = run()
    assert loss.requires_grad
    return sum(size for size, _ in found.values())


@pytest.mark.parametrize('autocast', [True, False])
def test_blocks_keep_what_the_formula_says(autocast):
    from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer

    dims, ffn, tokens, depth = 64, 192, 50, 3
    stack = torch.nn.Sequential(*(TransformerEncoderLayer(dims, 4, ffn) for _ in range(depth)))
    x = torch.randn(2, tokens, dims, requires_grad=True)
    kept = kept_bytes(stack, lambda: stack(x).float().sum(), autocast)
    part = blocks('', depth, dims, ffn, [tokens], width=2 if autocast else 4)
    assert 2 * part.saved == pytest.approx(kept, rel=0.1)


@pytest.mark.parametrize('kind', ['MAE', 'EMAE'])
def test_pretraining_keeps_what_the_formula_says(kind, monkeypatch):
    monkeypatch.setattr(attention, '_better_in_fp32', lambda x: False)  # as on the GPUs that the formula is for
    backbone = dict(VIT, arch=dict(embed_dims=64, num_layers=3, num_heads=4, feedforward_channels=256), img_size=64)
    masker = dict(type='ParallelMasking', num_parts=4) if kind == 'EMAE' else dict(type='RandomMasking', ratio=0.75)
    model = build(kind, masker, backbone)
    batch = images(8, 64)
    kept = kept_bytes(model, lambda: total_loss(model.loss(batch)), True)
    work = work_of(dict(model=dict(type=kind, backbone=backbone, masker=masker, decoder=DECODER),
                        optim_wrapper=dict(type='AutocastOptimWrapper')), 64)  # fmt: skip
    assert 8 * work.saved == pytest.approx(kept, rel=0.15)


ADAMW = dict(optim_wrapper=dict(type='AutocastOptimWrapper', optimizer=dict(type='AdamW')))


def test_sum_by_hand():
    """1000 trained and 500 frozen parameters; 70 bytes an image kept by the first, 30 by the second at work."""
    work = Work('w', (Part('a', 1.0, params=1000, saved=70), Part('b', 1.0, FROZEN, 500, 30)), pixels=4)
    found = memory(work, ADAMW, 2, 1, True)
    assert found['parameters'] == 6000 and found['gradients'] == 4000 and found['optimizer'] == 8000
    assert found['casts'] == 3000 and found['activations'] == 2 * (100 + 4 * 3 * 5)
    assert found['total'] == sum(v for k, v in found.items() if k != 'total')
    assert memory(work, ADAMW, 2, 8, True)['gradients'] == 8000  # DDP's buckets
    assert memory(work, ADAMW, 2, 1, False)['casts'] == 0
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
