"""The ops once more, in plain Python loops: slow, obvious, and sharing no code with what they check."""

import math

import numpy as np


def iou(a, b, offset=0):
    width = min(a[2], b[2]) - max(a[0], b[0]) + offset
    height = min(a[3], b[3]) - max(a[1], b[1]) + offset
    inter = max(width, 0) * max(height, 0)
    area = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b)]
    return inter / (area[0] + area[1] - inter)


def nms(boxes, scores, threshold, offset=0):
    keep = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(iou(boxes[i], boxes[j], offset) <= threshold for j in keep):
            keep.append(i)
    return keep


def soft_nms(boxes, scores, threshold, sigma, min_score, method, offset=0):
    scores, left, picked = list(scores), set(range(len(boxes))), []
    while left:
        best = max(sorted(left), key=lambda i: scores[i])
        left.remove(best)
        picked.append((best, scores[best]))
        for i in list(left):
            overlap = iou(boxes[best], boxes[i], offset)
            if method == 'gaussian':
                scores[i] *= math.exp(-(overlap**2) / sigma)
            elif overlap >= threshold:
                scores[i] *= 0 if method == 'naive' else 1 - overlap
            if scores[i] < min_score:
                left.remove(i)
    return picked


def nms_match(boxes, scores, threshold):
    order, groups = sorted(range(len(boxes)), key=lambda i: -scores[i]), []
    while order:
        first = order.pop(0)
        hit = [i for i in order if iou(boxes[first], boxes[i]) >= threshold]
        groups.append([first, *hit])
        order = [i for i in order if i not in hit]
    return groups


def bilinear(plane, y, x, clamp):
    """Value of a (H, W) plane at a real position. ``clamp``: RoIAlign's border rule, else zeros outside."""
    height, width = plane.shape
    if clamp:
        if y < -1 or y > height or x < -1 or x > width:
            return 0.0
        y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    total, y0, x0 = 0.0, math.floor(y), math.floor(x)
    for yy in (y0, y0 + 1):
        for xx in (x0, x0 + 1):
            if 0 <= yy < height and 0 <= xx < width:
                total += plane[yy, xx] * (1 - abs(y - yy)) * (1 - abs(x - xx))
    return total


def roi_align(features, rois, size, scale, ratio, aligned):
    channels = features.shape[1]
    out = np.zeros((len(rois), channels, *size))
    shift = 0.5 if aligned else 0.0
    for r, (b, *corners) in enumerate(rois):
        x1, y1, x2, y2 = (value * scale - shift for value in corners)
        width, height = x2 - x1, y2 - y1
        if not aligned:
            width, height = max(width, 1.0), max(height, 1.0)
        bin_h, bin_w = height / size[0], width / size[1]
        ny, nx = (ratio, ratio) if ratio > 0 else (math.ceil(bin_h), math.ceil(bin_w))
        for c in range(channels):
            for i in range(size[0]):
                for j in range(size[1]):
                    values = [
                        bilinear(
                            features[int(b), c],
                            y1 + (i + (u + 0.5) / ny) * bin_h,
                            x1 + (j + (v + 0.5) / nx) * bin_w,
                            clamp=True,
                        )
                        for u in range(ny)
                        for v in range(nx)
                    ]
                    out[r, c, i, j] = sum(values) / max(len(values), 1)
    return out


def roi_pool(features, rois, size, scale):
    channels, height, width = features.shape[1:]
    out = np.zeros((len(rois), channels, *size))
    for r, (b, x1, y1, x2, y2) in enumerate(rois):
        left, top = x1 * scale, y1 * scale
        bin_w, bin_h = ((x2 + 1) * scale - left) / size[1], ((y2 + 1) * scale - top) / size[0]
        for i in range(size[0]):
            rows = range(max(math.floor(i * bin_h + top), 0), min(math.ceil((i + 1) * bin_h + top), height))
            for j in range(size[1]):
                columns = range(max(math.floor(j * bin_w + left), 0), min(math.ceil((j + 1) * bin_w + left), width))
                for c in range(channels):
                    region = [features[int(b), c, y, x] for y in rows for x in columns]
                    out[r, c, i, j] = max(region, default=0.0)
    return out


def deform_conv(x, offset, weight, stride, padding, dilation, groups, deform_groups, mask=None, bias=None):
    batch, channels, _, _ = x.shape
    outputs, per_group, kh, kw = weight.shape
    out_h, out_w = offset.shape[2:]
    out = np.zeros((batch, outputs, out_h, out_w))
    for b in range(batch):
        for o in range(outputs):
            group = o // (outputs // groups)
            for i in range(out_h):
                for j in range(out_w):
                    total = 0.0 if bias is None else bias[o]
                    for k in range(per_group):
                        c = group * per_group + k
                        d = c // (channels // deform_groups)
                        for u in range(kh):
                            for v in range(kw):
                                point = (d * kh + u) * kw + v
                                y = i * stride - padding + u * dilation + offset[b, 2 * point, i, j]
                                z = j * stride - padding + v * dilation + offset[b, 2 * point + 1, i, j]
                                gate = 1.0 if mask is None else mask[b, point, i, j]
                                total += weight[o, k, u, v] * gate * bilinear(x[b, c], y, z, clamp=False)
                    out[b, o, i, j] = total
    return out


def sigmoid_focal(logits, targets, gamma, alpha, weight=None):
    out = np.zeros_like(logits)
    for n, row in enumerate(logits):
        for c, value in enumerate(row):
            p = 1 / (1 + math.exp(-value))
            if targets[n] == c:
                out[n, c] = -alpha * (1 - p) ** gamma * math.log(p)
            else:
                out[n, c] = -(1 - alpha) * p**gamma * math.log(1 - p)
            if weight is not None and targets[n] < len(row):
                out[n, c] *= weight[targets[n]]
    return out


def softmax_focal(logits, targets, gamma, alpha, weight=None):
    out = np.zeros(len(logits))
    for n, row in enumerate(logits):
        p = math.exp(row[targets[n]]) / sum(math.exp(value) for value in row)
        out[n] = -alpha * (1 - p) ** gamma * math.log(p) * (1 if weight is None else weight[targets[n]])
    return out


def deformable_attention(value, shapes, locations, weights):
    batch, _, heads, dim = value.shape
    queries, points = locations.shape[1], locations.shape[4]
    out = np.zeros((batch, queries, heads * dim))
    for b in range(batch):
        for q in range(queries):
            for h in range(heads):
                start = 0
                for level, (height, width) in enumerate(shapes):
                    maps = value[b, start : start + height * width, h].reshape(height, width, dim)
                    start += height * width
                    for p in range(points):
                        x, y = locations[b, q, h, level, p]
                        for d in range(dim):
                            sample = bilinear(maps[:, :, d], y * height - 0.5, x * width - 0.5, clamp=False)
                            out[b, q, h * dim + d] += weights[b, q, h, level, p] * sample
    return out


def carafe(features, masks, kernel, groups, up):
    batch, channels, height, width = features.shape
    out = np.zeros((batch, channels, height * up, width * up))
    half = kernel // 2
    for b, c, i, j in np.ndindex(*out.shape):
        group = c // (channels // groups)
        for u in range(kernel):
            for v in range(kernel):
                y, x = i // up + u - half, j // up + v - half
                if 0 <= y < height and 0 <= x < width:
                    out[b, c, i, j] += features[b, c, y, x] * masks[b, (group * kernel + u) * kernel + v, i, j]
    return out
