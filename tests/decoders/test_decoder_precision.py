"""Under autocast the decoder adds up in fp32 and, where asked, predicts in fp32."""

import pytest
import torch
from tiny import VIT, build, images

PARALLEL = dict(type='ParallelMasking', num_parts=4)
UNEQUAL = dict(type='ParallelMasking', num_parts=3)  # of 16 patches: packed


def watched(model):
    """The inputs of the decoder's blocks and of its last norm, as they come by."""
    seen = []
    for layer in (*model.decoder.decoder_blocks, model.decoder.ln1):
        layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    return seen


def built(fp32_head, masker=PARALLEL):
    torch.manual_seed(0)
    return build('EMAE', masker, VIT, decoder=dict(fp32_head=fp32_head))


def predictions(model, batch):
    with torch.autocast('cpu', torch.bfloat16):
        tokens = model.encoder.embed(batch)
        plan = model.draw_plan(tokens, torch.Generator().manual_seed(0))
        return model.predict_hidden(tokens, plan), plan


@pytest.mark.parametrize('masker', [PARALLEL, UNEQUAL], ids=['equal', 'ragged'])
def test_what_the_blocks_add_to_stays_in_fp32(masker):
    model = built(False, masker)
    seen = watched(model)
    out, plan = predictions(model, images(3))
    assert plan.uniform == (masker is PARALLEL)
    assert len(seen) == len(model.decoder.decoder_blocks) + 1
    assert {x.dtype for x in seen} == {torch.float32} and out.dtype == torch.bfloat16


@pytest.mark.parametrize('masker', [PARALLEL, UNEQUAL], ids=['equal', 'ragged'])
def test_the_head_in_fp32(masker):
    model = built(True, masker)
    seen = watched(model)
    out, _ = predictions(model, images(3))
    head, norm = model.decoder.decoder_pred, model.decoder.ln1
    x = seen[-1].double()
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + norm.eps).sqrt()
    wanted = (x * norm.weight.double() + norm.bias.double()) @ head.weight.double().T + head.bias.double()
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.double().flatten(0, -2), wanted.flatten(0, -2), rtol=1e-5, atol=1e-5)


def test_parts_that_agree_agree_better_with_a_head_in_fp32():
    """Where blocks add little, parts differ by little, and rounding in the head would be most of what is left."""
    found, batch = {}, images(4)
    for name in ('fp32', 'bf16', 'bf16, head in fp32'):
        model = built(name.endswith('in fp32'))
        with torch.no_grad():
            for block in model.decoder.decoder_blocks:
                block.attn.proj.weight.mul_(1e-2)
                block.ffn.layers[1].weight.mul_(1e-2)
        model.mask_generator = torch.Generator().manual_seed(0)
        with torch.no_grad(), torch.autocast('cpu', torch.bfloat16, enabled=name != 'fp32'):
            found[name] = model.loss(batch)['consistency'].item()
    assert found['bf16'] > 1.2 * found['fp32']
    assert found['bf16, head in fp32'] == pytest.approx(found['fp32'], rel=0.02)
