"""NMS and its relatives, and box overlaps. Boxes are (x1, y1, x2, y2) in pixels; width is x2 - x1 + offset."""

import torch
import torchvision

from mim_mm.compat.ops._cast import compute_dtype


def nms(boxes, scores, iou_threshold, offset):
    """Greedy NMS.

    Args:
        boxes: (N, 4). scores: (N,). iou_threshold: a box goes when its IoU with a kept one is *greater*.
        offset: 0, or 1 for boxes whose x2, y2 are the last pixel inside.

    Returns:
        (M,) long, indices of the kept boxes by descending score.
    """
    dtype = compute_dtype(boxes)
    boxes = boxes.to(dtype)
    if offset:  # moving x2 and y2 by one turns every width, height and intersection into the offset-1 form
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    return torchvision.ops.nms(boxes, scores.to(dtype), float(iou_threshold))


def _iou_one_to_many(box, others, offset):
    lt = torch.maximum(box[:2], others[:, :2])
    rb = torch.minimum(box[2:], others[:, 2:])
    inter = (rb - lt + offset).clamp(min=0).prod(1)
    area = (box[2:] - box[:2] + offset).prod()
    areas = (others[:, 2:] - others[:, :2] + offset).prod(1)
    return inter / (area + areas - inter)


def softnms(boxes, scores, dets, iou_threshold, sigma, min_score, method, offset):
    """Soft-NMS (Bodla et al., ICCV 2017); method 0 hard, 1 linear ``1 - iou``, 2 gaussian ``exp(-iou^2 / sigma)``.

    ``dets`` (N, 5) receives the picked boxes with their decayed scores in its first M rows. Equal scores are taken in
    the order of their indices. As in mmcv the first box stays even when its score is under ``min_score``.

    Returns:
        (M,) long, indices of the picked boxes in the order of picking.
    """
    dtype = compute_dtype(boxes)
    boxes, scores = boxes.to(dtype), scores.to(dtype).clone()
    left = torch.arange(len(boxes), device=boxes.device)
    picked = []
    while len(left):
        best = left[scores[left].argmax()]
        dets[len(picked), :4] = boxes[best].to(dets.dtype)
        dets[len(picked), 4] = scores[best].to(dets.dtype)
        picked.append(best)
        left = left[left != best]
        iou = _iou_one_to_many(boxes[best], boxes[left], offset)
        if method == 2:
            weight = torch.exp(-iou.square() / sigma)
        else:
            decay = torch.zeros_like(iou) if method == 0 else 1 - iou
            weight = torch.where(iou >= iou_threshold, decay, torch.ones_like(iou))
        scores[left] *= weight
        left = left[scores[left] >= min_score]
    return torch.stack(picked) if picked else left


def nms_match(dets, iou_threshold):
    """Groups of boxes: each kept box first, then those it suppressed (IoU at least the threshold), by score.

    Args:
        dets: (N, 5) boxes with score. Returns: list of lists of int.
    """
    dets = dets.to(compute_dtype(dets))
    order = dets[:, 4].argsort(descending=True, stable=True)
    groups = []
    while len(order):
        first, rest = order[0], order[1:]
        hit = _iou_one_to_many(dets[first, :4], dets[rest, :4], 0) >= iou_threshold
        groups.append([int(first)] + rest[hit].tolist())
        order = rest[~hit]
    return groups


def bbox_overlaps(bboxes1, bboxes2, ious, mode, aligned, offset):
    """Writes IoU (mode 0) or intersection over the area of the first box (mode 1) into ``ious``.

    ``ious`` is (M, N), or (M,) when ``aligned``.
    """
    dtype = compute_dtype(bboxes1)
    one, two = bboxes1.to(dtype), bboxes2.to(dtype)
    if not aligned:
        one, two = one[:, None], two[None]
    wh = (torch.minimum(one[..., 2:], two[..., 2:]) - torch.maximum(one[..., :2], two[..., :2]) + offset).clamp(min=0)
    inter = wh.prod(-1)
    union = (one[..., 2:] - one[..., :2] + offset).prod(-1)
    if mode == 0:
        union = union + (two[..., 2:] - two[..., :2] + offset).prod(-1) - inter
    ious.copy_(inter / union.clamp(min=max(offset, 1e-6)))
