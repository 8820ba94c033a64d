"""Each stand-in against a plain restatement, its gradient against finite differences, and its half precision."""

import numpy as np
import pytest
import restatements as plain
import torch
from mmcv import ops
from mmcv.ops.focal_loss import SigmoidFocalLossFunction, SoftmaxFocalLossFunction
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction
from mmcv.utils import ext_loader
from torch.autograd import gradcheck
from torch.nn import functional as F

HALF = [torch.float16, torch.bfloat16]
ROUNDING = {torch.float16: 1e-3, torch.bfloat16: 8e-3}  # about one unit in the last place, relative


def boxes_and_scores(count, size=20.0):
    corner = torch.rand(count, 2) * size
    return torch.cat([corner, corner + 2 + torch.rand(count, 2) * size], 1), torch.rand(count)


def rois(count, images, size):
    boxes, _ = boxes_and_scores(count, size)
    return torch.cat([torch.randint(images, (count, 1)).float(), boxes], 1)


def close(got, wanted, tolerance=1e-5):
    torch.testing.assert_close(got.double(), torch.as_tensor(wanted).double(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.1, 0.3, 0.7])
def test_nms(offset, threshold):
    boxes, scores = boxes_and_scores(60)
    dets, kept = ops.nms(boxes, scores, threshold, offset=offset)
    assert kept.tolist() == plain.nms(boxes.tolist(), scores.tolist(), threshold, offset)
    assert 1 < len(kept) < 60
    torch.testing.assert_close(dets, torch.cat([boxes[kept], scores[kept, None]], 1))


def test_nms_offset_changes_the_result():
    # widths 9 and 10 pixels: 0.9 without the extra pixel, 10 / 11 = 0.909 with it
    boxes, scores = torch.tensor([[0.0, 0, 10, 10], [0, 0, 9, 10]]), torch.tensor([0.9, 0.8])
    assert len(ops.nms(boxes, scores, 0.905, offset=0)[1]) == 2
    assert len(ops.nms(boxes, scores, 0.905, offset=1)[1]) == 1


def test_nms_limits_and_empty():
    boxes, scores = boxes_and_scores(30)
    dets, kept = ops.nms(boxes, scores, 0.5, score_threshold=0.4, max_num=4)
    above = [i for i in plain.nms(boxes.tolist(), scores.tolist(), 0.5) if scores[i] > 0.4]
    assert kept.tolist() == above[:4]
    assert ops.nms(torch.zeros(0, 4), torch.zeros(0), 0.5)[1].shape == (0,)


def test_batched_nms_keeps_classes_apart():
    boxes, scores = boxes_and_scores(40)
    labels = torch.randint(3, (40,))
    _, kept = ops.batched_nms(boxes, scores, labels, dict(type='nms', iou_threshold=0.3))
    wanted = []
    for label in range(3):
        index = (labels == label).nonzero()[:, 0]
        found = plain.nms(boxes[index].tolist(), scores[index].tolist(), 0.3)
        wanted += index[torch.tensor(found)].tolist()
    assert kept.tolist() == sorted(wanted, key=lambda i: -scores[i])


@pytest.mark.parametrize('dtype', HALF)
def test_nms_half(dtype):
    boxes, scores = boxes_and_scores(40)
    boxes, scores = boxes.to(dtype), (torch.randperm(40) / 64).to(dtype)  # multiples of 1/64: no ties after rounding
    _, kept = ops.nms(boxes, scores, 0.3)
    assert kept.tolist() == plain.nms(boxes.tolist(), scores.tolist(), 0.3)


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
def test_soft_nms(method, offset):
    boxes, scores = boxes_and_scores(40)
    dets, kept = ops.soft_nms(boxes, scores, 0.3, sigma=0.4, min_score=0.05, method=method, offset=offset)
    wanted = plain.soft_nms(boxes.tolist(), scores.tolist(), 0.3, 0.4, 0.05, method, offset)
    assert kept.tolist() == [index for index, _ in wanted]
    close(dets[:, 4], [score for _, score in wanted])
    torch.testing.assert_close(dets[:, :4], boxes[kept])
    assert len(ops.soft_nms(torch.zeros(0, 4), torch.zeros(0))[1]) == 0


def test_nms_match():
    boxes, scores = boxes_and_scores(40)
    groups = ops.nms_match(torch.cat([boxes, scores[:, None]], 1), 0.4)
    assert [group.tolist() for group in groups] == plain.nms_match(boxes.tolist(), scores.tolist(), 0.4)


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('mode', ['iou', 'iof'])
def test_bbox_overlaps(mode, offset):
    one, two = boxes_and_scores(7)[0], boxes_and_scores(5)[0]
    wanted = torch.tensor([[plain.iou(a, b, offset) for b in two.tolist()] for a in one.tolist()])
    if mode == 'iof':  # inter = iou * (a + b) / (1 + iou)
        areas = [(boxes[:, 2:] - boxes[:, :2] + offset).prod(1) for boxes in (one, two)]
        wanted = wanted * (areas[0][:, None] + areas[1]) / (1 + wanted) / areas[0][:, None]
    close(ops.bbox_overlaps(one, two, mode, offset=offset), wanted)
    close(ops.bbox_overlaps(one[:5], two, mode, aligned=True, offset=offset), wanted[:5].diag())


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 1, 2])
def test_roi_align(aligned, ratio):
    features, boxes = torch.randn(2, 3, 9, 11), rois(6, 2, 40.0)
    boxes[0, 1:] += 500  # wholly outside: zeros
    got = ops.roi_align(features, boxes, (2, 3), 0.25, ratio, 'avg', aligned)
    close(got, plain.roi_align(features.double().numpy(), boxes.tolist(), (2, 3), 0.25, ratio, aligned))
    assert got[0].abs().max() == 0 and got[1:].abs().max() > 0


@pytest.mark.parametrize('deterministic', [False, True])
@pytest.mark.parametrize('aligned', [True, False])
def test_roi_align_gradient(aligned, deterministic):
    features, boxes = torch.randn(2, 2, 6, 7, dtype=torch.double, requires_grad=True), rois(4, 2, 20.0).double()
    torch.use_deterministic_algorithms(deterministic)
    try:
        assert gradcheck(lambda x: ops.roi_align(x, boxes, (2, 2), 0.25, 2, 'avg', aligned), features)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize('dtype', HALF)
@pytest.mark.parametrize('autocast', [False, True])
def test_roi_align_half(dtype, autocast):
    features = torch.randn(2, 3, 9, 11).to(dtype).requires_grad_()
    boxes = rois(6, 2, 30.0).round()  # integers: exact in either type
    with torch.autocast('cpu', dtype=dtype, enabled=autocast):
        got = ops.roi_align(features, boxes.to(dtype), (2, 3), 0.25, 0, 'avg', True)
    assert got.dtype == dtype
    reference = features.detach().float().requires_grad_()
    wanted = ops.roi_align(reference, boxes, (2, 3), 0.25, 0, 'avg', True)
    close(got, wanted.detach(), ROUNDING[dtype])
    got.sum().backward(), wanted.sum().backward()
    close(features.grad, reference.grad, ROUNDING[dtype])


def test_roi_align_without_rois():
    features = torch.randn(1, 2, 5, 5, requires_grad=True)
    got = ops.roi_align(features, torch.zeros(0, 5), (3, 3), 1.0, 0, 'avg', True)
    assert got.shape == (0, 2, 3, 3)
    got.sum().backward()
    assert features.grad.abs().max() == 0


def test_roi_pool():
    features, boxes = torch.randn(2, 3, 9, 11), rois(6, 2, 30.0)
    got = ops.roi_pool(features, boxes, (2, 3), 0.25)
    close(got, plain.roi_pool(features.double().numpy(), boxes.tolist(), (2, 3), 0.25))
    double = features[:, :2].double().requires_grad_()
    assert gradcheck(lambda x: ops.roi_pool(x, boxes.double(), (2, 3), 0.25), double)


@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('gamma,alpha', [(2.0, 0.25), (1.5, 0.6), (0.0, 0.5)])
def test_sigmoid_focal_loss(gamma, alpha, weighted):
    logits, targets = torch.randn(9, 4, dtype=torch.double), torch.randint(5, (9,))  # 4 = background
    weight = torch.rand(4, dtype=torch.double) if weighted else None
    got = SigmoidFocalLossFunction.apply(logits, targets, gamma, alpha, weight, 'none')
    wanted = plain.sigmoid_focal(logits.numpy(), targets.tolist(), gamma, alpha, weight)
    close(got, wanted, 1e-9)
    close(ops.sigmoid_focal_loss(logits, targets, gamma, alpha, weight, 'mean'), wanted.sum() / 9, 1e-9)
    logits.requires_grad_()
    assert gradcheck(lambda x: ops.sigmoid_focal_loss(x, targets, gamma, alpha, weight, 'sum'), logits)


@pytest.mark.parametrize('weighted', [False, True])
def test_softmax_focal_loss(weighted):
    logits, targets = torch.randn(9, 4, dtype=torch.double), torch.randint(4, (9,))
    weight = torch.rand(4, dtype=torch.double) if weighted else None
    got = SoftmaxFocalLossFunction.apply(logits, targets, 2.0, 0.25, weight, 'none')
    close(got, plain.softmax_focal(logits.numpy(), targets.tolist(), 2.0, 0.25, weight), 1e-9)
    logits.requires_grad_()
    assert gradcheck(lambda x: ops.softmax_focal_loss(x, targets, 2.0, 0.25, weight, 'mean'), logits)


@pytest.mark.parametrize('dtype', HALF)
def test_sigmoid_focal_loss_half_and_extreme_logits(dtype):
    logits = torch.tensor([[30.0, -30.0], [-30.0, 30.0]], dtype=dtype, requires_grad=True)
    loss = ops.sigmoid_focal_loss(logits, torch.tensor([0, 0]), 2.0, 0.25, None, 'sum')
    loss.backward()
    # confident and right: nothing; confident and wrong: about 0.25 * 30 + 0.75 * 30, slope 1 each
    close(loss.detach(), 30.0, ROUNDING[dtype])
    close(logits.grad, [[0, 0], [-0.25, 0.75]], ROUNDING[dtype])


def deform_input(batch=2, channels=4, groups=2, deform_groups=2, size=(5, 6), kernel=(3, 2), outputs=4, **geometry):
    stride, padding, dilation = (geometry.get(key, 1) for key in ('stride', 'padding', 'dilation'))
    shape = [(size[i] + 2 * padding - dilation * (kernel[i] - 1) - 1) // stride + 1 for i in (0, 1)]
    points = deform_groups * kernel[0] * kernel[1]
    make = dict(dtype=torch.double)
    return (
        torch.randn(batch, channels, *size, **make),
        torch.randn(batch, 2 * points, *shape, **make) * 1.5,
        torch.rand(batch, points, *shape, **make),
        torch.randn(outputs, channels // groups, *kernel, **make),
        torch.randn(outputs, **make),
    )


@pytest.mark.parametrize('stride,padding,dilation', [(1, 1, 1), (2, 0, 1), (1, 2, 2)])
@pytest.mark.parametrize('groups,deform_groups', [(1, 1), (2, 1), (2, 2)])
def test_deformable_convolutions(stride, padding, dilation, groups, deform_groups):
    geometry = dict(stride=stride, padding=padding, dilation=dilation)
    x, offset, mask, weight, bias = deform_input(groups=groups, deform_groups=deform_groups, **geometry)
    arrays = [tensor.numpy() for tensor in (x, offset, weight)]
    settings = (stride, padding, dilation, groups, deform_groups)
    got = ops.deform_conv2d(x, offset, weight, stride, padding, dilation, groups, deform_groups)
    close(got, plain.deform_conv(*arrays, *settings), 1e-9)
    got = ops.modulated_deform_conv2d(x, offset, mask, weight, bias, *settings)
    close(got, plain.deform_conv(*arrays, *settings, mask.numpy(), bias.numpy()), 1e-9)


def test_deformable_convolution_gradients():
    small = dict(batch=2, channels=2, groups=1, deform_groups=1, size=(3, 3), kernel=(2, 2), outputs=2)
    x, offset, mask, weight, bias = (t.requires_grad_() for t in deform_input(**small))
    assert gradcheck(lambda *t: ops.deform_conv2d(*t, 1, 1), (x, offset.detach().requires_grad_(), weight))
    assert gradcheck(lambda *t: ops.modulated_deform_conv2d(*t, 1, 1), (x, offset, mask, weight, bias))
    assert gradcheck(lambda *t: ops.modulated_deform_conv2d(*t, None, 1, 1), (x, offset, mask, weight))


@pytest.mark.parametrize('dtype', HALF)
def test_deformable_convolution_half(dtype):
    layer = ops.ModulatedDeformConv2dPack(4, 6, 3, padding=1)
    torch.nn.init.normal_(layer.conv_offset.weight, std=0.1)
    x = torch.randn(2, 4, 6, 6)
    wanted = layer(x)
    with torch.autocast('cpu', dtype=dtype):
        got = layer(x)
    assert got.dtype == dtype
    got.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in layer.parameters())
    torch.testing.assert_close(got.float(), wanted, rtol=0.05, atol=0.05)


def test_deformable_convolution_refuses_a_wrong_offset():
    x, offset, _, weight, _ = deform_input(groups=2, deform_groups=2)
    with pytest.raises(ValueError, match='deform groups'):
        ops.deform_conv2d(x, offset, weight, 1, 1, 1, 2, 1)


def attention_input(dtype=torch.double):
    shapes = [(3, 4), (2, 2)]
    value = torch.randn(2, 16, 2, 3, dtype=dtype)
    locations = torch.rand(2, 5, 2, 2, 3, 2, dtype=dtype) * 1.4 - 0.2
    weights = torch.rand(2, 5, 2, 2, 3, dtype=dtype)
    return shapes, value, locations, weights


def test_deformable_attention():
    shapes, value, locations, weights = attention_input()
    starts = torch.tensor([0, 12])

    def attend(value, locations, weights):
        return MultiScaleDeformableAttnFunction.apply(value, torch.tensor(shapes), starts, locations, weights, 64)

    arrays = (tensor.numpy() for tensor in (locations, weights))
    close(attend(value, locations, weights), plain.deformable_attention(value.numpy(), shapes, *arrays), 1e-9)
    small = [t[:1].clone().requires_grad_() for t in (value, locations[:, :2], weights[:, :2])]
    assert gradcheck(attend, small)


@pytest.mark.parametrize('function', [ops.carafe, ops.carafe_naive])
def test_carafe(function):
    features, masks = torch.randn(2, 4, 3, 3, dtype=torch.double), torch.rand(2, 18, 6, 6, dtype=torch.double)
    close(function(features, masks, 3, 2, 2), plain.carafe(features.numpy(), masks.numpy(), 3, 2, 2), 1e-9)
    if function is ops.carafe:  # mmcv's naive form asserts a GPU in backward
        leaves = features[:1, :2].clone().requires_grad_(), masks[:1].clone().requires_grad_()
        assert gradcheck(lambda f, m: function(f, m, 3, 2, 2), leaves)


def test_masked_convolution_equals_a_convolution_where_the_mask_is_set():
    layer = ops.MaskedConv2d(3, 4, 3, padding=1).eval()
    x, mask = torch.randn(1, 3, 6, 7), torch.rand(1, 6, 7) > 0.5
    got = layer(x, mask.float())
    torch.testing.assert_close(got, layer(x) * mask, rtol=1e-5, atol=1e-5)


def test_sync_bn_kernels_equal_batch_norm():
    ext = ext_loader.load_ext('_ext', ['sync_bn_forward_mean'])
    x, weight, bias = torch.randn(4, 3, 10), torch.rand(3) + 0.5, torch.randn(3)
    mean, var, std, running = torch.zeros(3), torch.zeros(3), torch.zeros(3), [torch.zeros(3), torch.ones(3)]
    norm, output = torch.zeros_like(x), torch.zeros_like(x)
    ext.sync_bn_forward_mean(x, mean)
    ext.sync_bn_forward_var(x, mean, var)
    ext.sync_bn_forward_output(
        x, mean, var, weight, bias, *running, norm, std, output, eps=1e-5, momentum=0.1, group_size=1
    )
    leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
    statistics = [torch.zeros(3), torch.ones(3)]
    wanted = F.batch_norm(leaves[0], *statistics, leaves[1], leaves[2], training=True, momentum=0.1)
    close(output, wanted.detach(), 1e-4)
    close(torch.stack(running), torch.stack(statistics), 1e-5)
    grad = torch.randn_like(x)
    wanted.backward(grad)
    by_weight, by_bias, by_input = torch.zeros(3), torch.zeros(3), torch.zeros_like(x)
    ext.sync_bn_backward_param(grad, norm, by_weight, by_bias)
    ext.sync_bn_backward_data(grad, weight, by_weight, by_bias, norm, std, by_input)
    for got, leaf in zip((by_input, by_weight, by_bias), leaves):
        close(got, leaf.grad, 1e-4)


def test_every_array_of_a_numpy_call_stays_numpy():
    boxes, scores = boxes_and_scores(10)
    dets, kept = ops.nms(boxes.numpy(), scores.numpy(), 0.3)
    assert isinstance(dets, np.ndarray) and kept.tolist() == plain.nms(boxes.tolist(), scores.tolist(), 0.3)
