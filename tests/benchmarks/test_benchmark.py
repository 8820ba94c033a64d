"""The benchmark measures what it says: contenders compute the same losses, turns are counted, the finder finds."""

import argparse
import sys
import types
from pathlib import Path

import pytest
import torch
from losses_restated import naive_consistency

from mim_mm.benchmarks import batch, contenders, curve, peers, step, timing

CPU = torch.device('cpu')
ARCH = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=128)
DECODER = dict(embed_dims=24, depth=1, num_heads=2)


def configured(parts):
    return contenders.model_config(dict(ARCH), parts, 32, 8, DECODER)


def orders(parts, count=16, images=3):
    ids = torch.rand(images, count).argsort(1)
    if parts == 1:
        return ids[:, None]
    groups = ids.view(images, parts, -1)
    return torch.stack([
        torch.cat([groups[:, k], *[groups[:, g] for g in range(parts) if g != k]], dim=1) for k in range(parts)
    ], dim=1)  # fmt: skip


@pytest.mark.parametrize('parts', [1, 4])
def test_the_reference_has_our_loss_and_gradient(parts):
    cfg = configured(parts)
    mine = contenders.ours(cfg, torch.float32, CPU)
    weights = {k: v.detach().clone() for k, v in mine.model.state_dict().items()}
    make = contenders.naive_emae if parts > 1 else contenders.mmpretrain_contender
    reference = make(cfg, weights, torch.float32, CPU)
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    order = orders(parts)
    losses = [contender.loss(images, order) for contender in (mine, reference)]
    torch.testing.assert_close(*losses)
    for loss in losses:
        loss.backward()
    gradients = [c.model.backbone.patch_embed.projection.weight.grad for c in (mine, reference)]
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)


def test_the_pair_tensor_is_the_definition():
    pred, mask = torch.randn(2, 4, 6, 5), torch.rand(2, 4, 6) < 0.7
    torch.testing.assert_close(
        contenders.pairwise_consistency(pred, mask.long()), naive_consistency(pred, mask, 'overlap')
    )


@pytest.mark.parametrize('parts', [1, 4])
def test_whole_steps_move_every_contender(parts):
    found = {'ours': contenders.ours(configured(parts), torch.float32, CPU)}
    weights = {k: v.detach().clone() for k, v in found['ours'].model.state_dict().items()}
    make = contenders.naive_emae if parts > 1 else contenders.mmpretrain_contender
    found['reference'] = make(configured(parts), weights, torch.float32, CPU)
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    for contender in found.values():
        before = {k: v.clone() for k, v in contender.model.named_parameters() if v.requires_grad}
        loss = contender.step(images)
        assert loss.isfinite() and not loss.requires_grad
        moved = [k for k, v in contender.model.named_parameters() if k in before and not torch.equal(v, before[k])]
        assert set(moved) == set(before)
        assert 'random_masking' not in vars(contender.model.backbone)  # it draws its own masks again


@pytest.mark.parametrize('name', [name for name, here in peers.available().items() if here] or ['none'])
def test_peers_that_are_installed_train(name):
    if name == 'none':
        pytest.skip('no peer is installed: pip install timm transformers lightly')
    contender = peers.build(name, (32, 2, 2), 32, 8, torch.float32, CPU, (24, 1, 2))
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    before = [p.clone() for p in contender.model.parameters()]
    assert contender.step(images).isfinite()
    assert any(not torch.equal(a, b) for a, b in zip(before, contender.model.parameters(), strict=True))


def test_turns_are_taken_and_counted():
    calls = []

    def breaks():
        calls.append('b')
        if calls.count('b') == 3:
            raise RuntimeError('out of memory\nand more')

    found = timing.take_turns(
        {'a': lambda: calls.append('a'), 'b': breaks, 'c': lambda: calls.append('c')}, CPU, rounds=2, steps=2, warmup=1
    )
    assert ''.join(calls) == 'abc' + 'aabbcc' + 'aacc'
    assert found['b'] == 'out of memory' and len(found['a'].seconds) == 2 and found['a'].peak is None
    with pytest.raises(ValueError, match='rounds=0'):
        timing.take_turns({}, CPU, rounds=0)


def test_timing_statistics_by_hand():
    found = timing.Timing((1.0, 2.0, 4.0))
    assert found.median == 2.0 and found.spread == 0.75


@pytest.mark.parametrize('limit', [0, 7, 8, 100, 512, 1000])
def test_the_largest_batch_is_found(limit):
    asked = []

    def fits(count):
        asked.append(count)
        return count <= limit

    assert batch.largest(fits, start=8, multiple=8) == limit // 8 * 8
    assert len(asked) <= 16


@pytest.mark.slow
def test_a_whole_benchmark_and_its_table(monkeypatch):
    monkeypatch.setitem(contenders.ARCHS, 'S/16', (ARCH, 16))
    monkeypatch.setattr(peers, 'available', lambda: {})
    monkeypatch.setattr(step, 'matmul_rate', lambda *args: 1e12)
    for parts, other in ((1, "mmpretrain's MAE"), (4, 'naive EMAE on mmpretrain')):
        setting = step.Setting('S/16', parts, 2, 64, 'fp32', 'cpu')
        result = step.run(setting, rounds=1, steps=1, warmup=0, say=lambda text: None)
        assert [row['name'] for row in result['rows']][1] == other
        assert result['parity'][other] < 1e-4
        row = result['rows'][0]
        assert row['images_s'] == pytest.approx(2 / (row['step_ms'] / 1e3))
        assert row['mfu'] == pytest.approx(row['images_s'] * result['gflops_image'] * 1e9 / 1e12)
        assert {'encoder', 'decoder', 'backward', 'optimizer'} <= set(result['shares'])
        text = step.table(result)
        assert other in text and '1.00 x' in text
        assert step.measurements([result]) == []  # a CPU's figures are no GPU's


def test_the_tool_refuses_to_overwrite(tmp_path, monkeypatch, capsys):
    import runpy

    target = tmp_path / 'figures.json'
    target.write_text('mine')
    stand_in = types.SimpleNamespace(arguments=lambda parser: None, execute=lambda args, say: dict(text='ran'))
    monkeypatch.setitem(sys.modules, 'mim_mm.benchmarks.step', stand_in)
    monkeypatch.setattr(sys, 'argv', ['benchmark.py', 'step', '--json', str(target)])
    with pytest.raises(SystemExit):
        runpy.run_path(str(Path(__file__).resolve().parents[2] / 'tools' / 'benchmark.py'), run_name='__main__')
    assert 'not overwritten' in capsys.readouterr().err and target.read_text() == 'mine'


@pytest.mark.slow
def test_loss_curves_share_weights_images_and_masks(tmp_path):
    words = '--arch S/16 --parts 1 --size 32 --batch 2 --steps 2 --device cpu --control --picture'.split()
    parser = argparse.ArgumentParser()
    curve.arguments(parser)
    result = curve.execute(parser.parse_args([*words, str(tmp_path / 'curve.png')]), lambda text: None)
    curves = result['curves']
    plain = curves.pop('fp32 eager')
    assert curve.CONTROL in curves and result['differences']['fp32 eager'] == (0, 0)
    for values in curves.values():
        assert len(values) == 2 and values[0] != plain[0]
        assert values[0] == pytest.approx(plain[0], rel=0.01)  # the same start, but for rounding
    assert (tmp_path / 'curve.png').stat().st_size > 1000
