"""HiViT's maps for a detector against mmpretrain's own forward pass."""

import pytest
import torch
from mmpretrain.models import HiViT

from mim_mm.detection.hivit_maps import HiViTMaps

# Early stages: blocks 0 and 1, merging 2, blocks 3 and 4, merging 5. Seven main blocks, because the parent confuses the
# number of its last one with those of the early blocks.
ARCH = dict(embed_dims=64, depths=[1, 1, 7], num_heads=2)


def pair():
    """mmpretrain's HiViT, the outputs of its early stages as they are when it runs, and ours with its weights."""
    parent, model = HiViT(arch=ARCH, img_size=64, out_indices=[6]), HiViTMaps(arch=ARCH, img_size=64, with_cp=True)
    torch.nn.init.normal_(parent.pos_embed)
    model.load_state_dict(parent.state_dict())
    stages = []
    for index in (1, 4):
        parent.blocks[index].register_forward_hook(lambda module, args, out: stages.append(out))
    return parent, stages, model


def laid_out(cells, rows, columns):
    """(B, N, h, w, C) -> (B, C, rows * h, columns * w), one patch after the other."""
    side = cells.shape[2]
    out = cells.new_zeros(len(cells), cells.shape[-1], rows * side, columns * side)
    for n in range(rows * columns):
        y, x = n // columns * side, n % columns * side
        out[:, :, y : y + side, x : x + side] = cells[:, n].permute(0, 3, 1, 2)
    return out


@pytest.mark.parametrize('size', [(64, 64), (96, 32)])
def test_maps_and_gradients_are_those_of_the_parent(size):
    parent, stages, model = pair()
    x = torch.randn(2, 3, *size)
    (main,), maps = parent(x), model(x)
    wanted = [*(laid_out(s, size[0] // 16, size[1] // 16) for s in stages), main]
    assert [m.shape[1:] for m in maps] == [
        (width, size[0] // stride, size[1] // stride) for width, stride in ((16, 4), (32, 8), (64, 16))
    ]
    for found, expected in zip(maps, wanted, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    sum(m.square().mean() for m in maps).backward()  # the blocks are recomputed
    sum(m.square().mean() for m in wanted).backward()
    reference = dict(parent.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, reference[name].grad, atol=1e-5, rtol=1e-3, msg=name)


def test_maps_lie_where_the_image_has_them():
    """The first stage looks inside 4-px cells only: one changed pixel reaches its own cell of the map and no other."""
    _, _, model = pair()
    x = torch.zeros(1, 3, 64, 96)
    changed = x.clone()
    changed[0, :, 37, 70] = 1
    difference = (model(changed)[0] - model(x)[0]).abs().sum(1)[0]
    assert difference.nonzero().tolist() == [[37 // 4, 70 // 4]]


@pytest.mark.parametrize('options', [dict(rpe=True), dict(out_indices=[3, 8, 23])])
def test_what_fits_one_input_size_only_is_refused(options):
    with pytest.raises(ValueError, match='remove out_indices and leave rpe at False'):
        HiViTMaps(**options)
