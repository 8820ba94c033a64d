"""Class-token attention against a direct softmax; AM, AMT and AttMask against their definitions restated."""

import math

import pytest
import torch
import torch.nn.functional as F
from tiny import HIVIT, VIT, build, images

from mim_mm.clock import Clock
from mim_mm.encoders import encoder_of
from mim_mm.masking import AttentionMasking, AttMask
from mim_mm.masking.attended import crop_map


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def attention_of(batch=3, patches=16, seed=0):
    return (2 * torch.randn(batch, patches, generator=generator(seed))).softmax(dim=1)


def no_tokens(batch=3, patches=16):
    return torch.zeros(batch, patches, 4)


# --- the attention itself ---


def cls_attention(backbone, tokens, **options):
    return encoder_of(backbone, 'cls_attention').cls_attention(tokens, **options)


def direct(x, qkv, heads):
    """All attention weights (B, H, T, T) of tokens (B, T, D), by the textbook."""
    batch, length, width = x.shape
    q, k, _ = qkv(x).view(batch, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    return (q @ k.transpose(-2, -1) / math.sqrt(width // heads)).softmax(dim=-1)


def embedded(backbone=VIT, **options):
    model = build('MAE', backbone={**backbone, **options}).eval()
    # Heads that attend to something: initial weights give nearly uniform rows.
    for parameter in model.backbone.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator(9))
    with torch.no_grad():
        return model.backbone, model.encoder.embed(images())


@torch.no_grad()
def last_vit_input(vit, tokens):
    x = tokens
    if vit.cls_token is not None:
        x = torch.cat([(vit.cls_token + vit.pos_embed[:, :1]).expand(len(x), -1, -1), x], dim=1)
    for layer in vit.layers[:-1]:
        x = layer(x)
    return vit.layers[-1].ln1(x)


def test_cls_attention_is_the_direct_softmax():
    vit, tokens = embedded()
    weights = direct(last_vit_input(vit, tokens), vit.layers[-1].attn.qkv, 2)[:, :, 0, 1:]
    got = cls_attention(vit, tokens)
    torch.testing.assert_close(got, weights.mean(dim=1), rtol=1e-5, atol=1e-7)
    assert not got.requires_grad and got.std() > 1e-3
    low, high = weights.amin(-1, keepdim=True), weights.amax(-1, keepdim=True)
    torch.testing.assert_close(cls_attention(vit, tokens, minmax_heads=True), ((weights - low) / (high - low)).mean(1))


def test_without_class_token_the_mean_query_asks():
    vit, tokens = embedded(with_cls_token=False)
    x, qkv = last_vit_input(vit, tokens), vit.layers[-1].attn.qkv
    query, keys = qkv(x)[..., :32].mean(dim=1).view(3, 2, 16), qkv(x)[..., 32:64].view(3, 16, 2, 16)
    expected = (torch.einsum('bhd,bnhd->bhn', query, keys) / 4).softmax(dim=-1).mean(dim=1)
    torch.testing.assert_close(cls_attention(vit, tokens), expected)
    hivit, tokens = embedded(HIVIT)
    got = cls_attention(hivit, tokens)
    torch.testing.assert_close(got.sum(dim=1), torch.ones(3))
    with torch.no_grad():
        x = hivit.blocks[-1].norm1(hivit.blocks[-2](tokens))
        query, keys = hivit.blocks[-1].attn.qkv(x)[..., :32].mean(dim=1), hivit.blocks[-1].attn.qkv(x)[..., 32:64]
        logits = (query.view(3, 1, 2, 16) * keys.view(3, 16, 2, 16)).sum(-1) / 4
    torch.testing.assert_close(got, logits.softmax(dim=1).mean(dim=2))


def test_the_last_block_is_not_run_and_dropout_is_off():
    vit, tokens = embedded(drop_path_rate=0.5, drop_rate=0.3)
    expected = cls_attention(vit, tokens)
    ran = []
    vit.layers[-1].attn.register_forward_hook(lambda *_: ran.append('attention'))
    vit.layers[-1].ffn.register_forward_hook(lambda *_: ran.append('mlp'))
    vit.train()
    vit.layers[0].ln1.eval()
    flags = [module.training for module in vit.modules()]
    torch.testing.assert_close(cls_attention(vit, tokens), expected)
    assert not ran and [module.training for module in vit.modules()] == flags


def test_cls_attention_under_autocast_is_fp32_and_near():
    vit, tokens = embedded()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        low = cls_attention(vit, tokens)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, cls_attention(vit, tokens), rtol=0.1, atol=0.01)


def test_other_backbones_are_refused_by_name():
    with pytest.raises(NotImplementedError, match='Linear shows no class-token attention.*VisionTransformer'):
        cls_attention(torch.nn.Linear(4, 4), no_tokens())


@pytest.mark.parametrize('masker', [AttentionMasking(), AttMask()], ids=lambda m: type(m).__name__)
def test_missing_or_foreign_attention_is_refused(masker):
    assert masker.needs_attention
    with pytest.raises(ValueError, match=r'encoder_of\(backbone\)\.cls_attention\(tokens\)'):
        masker(no_tokens())
    with pytest.raises(ValueError, match=r'attention is \(3, 17\)'):
        masker(no_tokens(), attention=attention_of(3, 17))


# --- AM and AMT ---


def test_am_draws_without_replacement_in_proportion_to_attention():
    weights = torch.tensor([0.5, 0.25, 0.15, 0.1])
    plan = AttentionMasking(0.5)(no_tokens(20000, 4), generator(), attention=weights.expand(20000, -1))
    mask = plan.mask[:, 0]
    for i in range(4):
        for j in range(i):
            # First i then j, or first j then i.
            wi, wj = weights[i].item(), weights[j].item()
            expected = wi * wj / (1 - wi) + wj * wi / (1 - wj)
            got = (mask[:, i] & mask[:, j]).float().mean().item()
            assert abs(got - expected) < 5 * math.sqrt(expected * (1 - expected) / 20000)


def test_amt_masks_first_throws_next_and_shows_the_rest():
    attention, drawn = attention_of(4, 20), torch.rand(4, 20, generator=generator(2))
    plan = AttentionMasking(0.45, 0.4)(no_tokens(4, 20), generator(2), attention=attention)
    assert plan.num_visible == (3,) and plan.num_thrown == 8
    for b in range(4):
        times = [-math.log(1 - u) / w for u, w in zip(drawn[b].tolist(), attention[b].tolist())]
        turn = sorted(range(20), key=lambda n: times[n])
        assert plan.mask[b, 0].nonzero().flatten().tolist() == sorted(turn[:9])
        assert plan.thrown[b, 0].nonzero().flatten().tolist() == sorted(turn[9:17])
        assert sorted(plan.visible[b, 0].tolist()) == sorted(turn[17:])
        assert plan.order[b, 0].tolist() == turn[17:] + turn[:17]


@pytest.mark.parametrize('ratios, counts', [((0.75, 0.0), (49, 147, 0)), ((0.45, 0.40), (30, 89, 77))])
def test_published_ratios_on_196_patches(ratios, counts):
    plan = AttentionMasking(*ratios)(no_tokens(2, 196), attention=attention_of(2, 196))
    hidden = plan.mask.sum(dim=-1).flatten().tolist()
    assert (plan.num_visible[0], hidden[0], plan.num_thrown) == counts and hidden[0] == hidden[1]


def test_patches_without_attention_come_last():
    attention = attention_of(50)
    attention[:, 3:7] = 0
    plan = AttentionMasking(0.75)(no_tokens(50), generator(), attention=attention)
    assert plan.visible[:, 0].sort(dim=1).values.tolist() == [[3, 4, 5, 6]] * 50
    assert len({tuple(row) for row in plan.visible[:, 0].tolist()}) > 5  # in random order
    nothing = AttentionMasking(0.75)(no_tokens(400), generator(), attention=torch.zeros(400, 16))
    assert (nothing.mask.float().mean(dim=(0, 1)) - 0.75).abs().max() < 0.12


def test_am_warms_up_without_attention():
    masker = AttentionMasking(0.45, 0.4, random_epochs=41)
    masker.set_clock(Clock.at_epoch(40))
    assert not masker.needs_attention
    plan = masker(no_tokens(), generator(1))
    assert torch.equal(plan.order[:, 0], torch.rand(3, 16, generator=generator(1)).argsort(dim=1))
    assert plan.num_visible == (4,)
    masker.set_clock(Clock.at_epoch(41))
    assert masker.needs_attention and masker(no_tokens(), attention=attention_of()).num_thrown == 5


def test_as_released_looks_at_four_patches_only():
    attention = attention_of(200, 36)
    masker = AttentionMasking(0.5, as_released=True)
    first = masker(no_tokens(200, 36), generator(), attention=attention)
    other = attention.clone().view(200, 6, 6)
    other[:, 2:] = other[:, 2:].flip(0)
    other[:, :, 2:] = other[:, :, 2:].flip(0)
    assert torch.equal(first.order, masker(no_tokens(200, 36), generator(), attention=other.flatten(1)).order)
    # All weight on the top left patch of the map: the whole top left quarter is hidden.
    corner = torch.zeros(200, 36)
    corner[:, 0] = 1
    mask = masker(no_tokens(200, 36), generator(), attention=corner).mask.view(200, 6, 6).float().mean(dim=0)
    assert mask[:2, :2].min() > 0.7 > 0.3 > mask[5, 5]


# --- the crop of a stored map ---


def test_the_whole_image_is_resized_and_summed_as_in_the_source():
    maps = torch.rand(2, 14, 14, generator=generator())
    boxes, sizes = torch.tensor([[0, 0, 300, 400]] * 2), torch.tensor([[300, 400]] * 2)
    pixels = F.interpolate(maps[:, None], size=224, mode='bilinear')
    expected = pixels.view(2, 14, 16, 14, 16).mean(dim=(2, 4))
    torch.testing.assert_close(crop_map(maps, boxes, sizes), expected, rtol=1e-4, atol=1e-5)


def test_a_crop_shows_its_own_part_of_the_map():
    # Bilinear interpolation is exact on a map that rises linearly: a patch of the crop has the value at its centre.
    row, column = torch.meshgrid(torch.arange(14.0), torch.arange(14.0), indexing='ij')
    maps = (row + 100 * column).expand(2, -1, -1)
    boxes = torch.tensor([[100.0, 50.0, 150.0, 300.0], [60.0, 120.0, 100.0, 200.0]])
    sizes = torch.tensor([[350, 500], [280, 420]])
    flip = torch.tensor([False, True])
    got = crop_map(maps, boxes, sizes, flip, grid=(5, 10))
    for b, (top, left, height, width) in enumerate(boxes.tolist()):
        for r in range(5):
            for c in range(10):
                y = 14 * (top + height * (r + 0.5) / 5) / sizes[b, 0].item() - 0.5
                x = 14 * (left + width * (c + 0.5) / 10) / sizes[b, 1].item() - 0.5
                place = 9 - c if flip[b] else c
                assert got[b, r, place].item() == pytest.approx(y + 100 * x, rel=1e-3, abs=0.05)


@pytest.mark.parametrize('box', [(100, 50, 150, 300), (0, 0, 350, 500), (200, 0, 150, 200), (0, 300, 100, 200)])
def test_the_released_crop_is_kept_for_comparison(box):
    maps, (top, left, height, width) = torch.rand(1, 14, 14, generator=generator()), box
    window = maps[:, top // 350 : (top + height) // 350 + 2, left // 500 : (left + width) // 500 + 2]
    assert set(window.shape[1:]) <= {2, 3}
    expected = F.interpolate(window[:, None], size=224, mode='bilinear').view(1, 14, 16, 14, 16).mean(dim=(2, 4))
    got = crop_map(maps, torch.tensor([box]), torch.tensor([[350, 500]]), as_released=True)
    torch.testing.assert_close(got, expected)


# --- AttMask ---


@pytest.mark.parametrize('variant', ['high', 'low'])
@pytest.mark.parametrize('ratio, hidden', [(0.75, 12), (0.3, 5)])
def test_attmask_hides_the_most_or_the_least_attended(variant, ratio, hidden):
    attention = attention_of()
    plan = AttMask(variant, ratio)(no_tokens(), attention=attention)
    for b in range(3):
        ascending = sorted(range(16), key=lambda n: attention[b, n].item())
        expected = ascending[-hidden:] if variant == 'high' else ascending[:hidden]
        assert plan.mask[b, 0].nonzero().flatten().tolist() == sorted(expected)


def test_attmask_draws_one_ratio_for_the_batch_and_hides_what_the_source_does():
    attention = attention_of(4, 196)
    counts = set()
    for seed in range(30):
        drawn = torch.rand(1, generator=generator(seed)).item()
        plan = AttMask()(no_tokens(4, 196), generator(seed), attention=attention)
        hidden = set(plan.mask.sum(dim=-1).flatten().tolist())
        assert hidden == {math.ceil(196 * (0.1 + 0.4 * drawn))}
        counts |= hidden
    assert min(counts) < 40 and max(counts) > 80


def test_hints_come_from_the_most_attended_tenth():
    attention = attention_of(5, 196)
    top = attention.argsort(dim=1, descending=True)
    shown_places = set()
    for seed in range(20):
        source = generator(seed)
        first, second = (0.1 + 0.4 * torch.rand(1, generator=source).item() for _ in range(2))
        plan = AttMask('hint')(no_tokens(5, 196), generator(seed), attention=attention)
        hidden = math.ceil(196 * first)
        for b in range(5):
            shown = [rank for rank in range(hidden) if not plan.mask[b, 0, top[b, rank]]]
            assert len(shown) == int(196 * 0.1 * second) and max(shown, default=0) < 19
            assert not plan.mask[b, 0, top[b, hidden:]].any()
            shown_places |= set(shown)
    assert len(shown_places) >= 17


def test_the_gate_leaves_images_whole_but_never_all_of_them():
    masker = AttMask('high', 0.5, masking_prob=0.5)
    masked = []
    for seed in range(100):
        plan = masker(no_tokens(4), generator(seed), attention=attention_of(4))
        hidden = plan.mask.sum(dim=-1).flatten().tolist()
        assert set(hidden) <= {0, 8} and 8 in hidden
        masked += [count == 8 for count in hidden]
    # Half of the images, and one more in the sixteenth of batches where none would be.
    assert abs(sum(masked) / 400 - (0.5 + 0.25 / 16)) < 5 * math.sqrt(0.25 / 400)


@pytest.mark.parametrize('make, words', [
    (lambda: AttMask('highest'), "variant is 'highest'"), (lambda: AttMask(ratio=(0.5, 0.1)), r'\(0.5, 0.1\)'),
    (lambda: AttMask(masking_prob=0), 'masking_prob=0'), (lambda: AttentionMasking(0.8, 0.3), 'throw_ratio=0.3'),
    (lambda: AttentionMasking(random_ratio=1), 'random_ratio is 1'),
])  # fmt: skip
def test_nonsense_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
