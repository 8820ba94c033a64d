"""Loaded by every Python of a run on the stand-in GPU (PYTHONPATH): the answers that only a real device could give.

Counts that depend on values read from the device (``nonzero``, ``unique``) would be what happens to lie in memory;
here half of the elements are non-zero and all values are one, so that what follows runs at a plausible size. ``all()``
(of what is finite, say) is true and ``any()`` false; what is looked up or divided by such values is made valid.
"""

import os
import sys


def _put(values, device):
    """On the device without a wait, which is counted (waits.py)."""
    return values.pin_memory().to(device, non_blocking=True)


def _half_nonzero(x):
    import torch

    x.new_zeros(()).item()  # the real one waits for the device
    return _put(torch.zeros(x.numel() // 2, x.ndim, dtype=torch.int64), x.device)


def _one_value(x, sorted=True, return_inverse=False, return_counts=False):
    import torch

    x.new_zeros(()).item()
    inverse = torch.zeros(x.shape if return_inverse else (0,), dtype=torch.int64, device=x.device)
    counts = torch.tensor([x.numel()] if return_counts else [], dtype=torch.int64)
    return _put(torch.zeros(1, dtype=x.dtype), x.device), inverse, _put(counts, x.device)


def _singular_values(x, full_matrices=False, compute_uv=True, driver=None):
    import torch

    x.new_zeros(()).item()  # the real one looks whether it converged
    rows, columns = x.shape[-2:]
    count = min(rows, columns)
    left = (*x.shape[:-1], rows if full_matrices else count) if compute_uv else (0,)
    right = (*x.shape[:-2], columns if full_matrices else count, columns) if compute_uv else (0,)
    values = _put(torch.ones(*x.shape[:-2], count, dtype=x.dtype), x.device)
    return x.new_empty(left), values, x.new_empty(right)


def _answer(value):
    def answer(x):
        import torch

        return _put(torch.tensor(value), x.device)

    return answer


def _prepare_torch(torch):
    torch.backends.cudnn.enabled = False
    torch.backends.cuda.enable_cudnn_sdp(False)
    global _library  # its registrations end with it
    _library = torch.library.Library('aten', 'IMPL')
    for name, function in dict(
        nonzero=_half_nonzero,
        _unique2=_one_value,
        _linalg_svd=_singular_values,
        all=_answer(True),
        any=_answer(False),
        erfinv_=lambda x: x,  # this kernel is compiled by NVRTC when it is first used
        erfinv=lambda x: x.clone(),
    ).items():
        _library.impl(name, function, 'CUDA')


def _prepare_anchors(module):
    """mmdet refuses images in which no anchor lies, which it reads from the device."""
    inside = module.anchor_inside_flags

    def flags(*args, **kwargs):
        found = inside(*args, **kwargs)
        found.any = lambda: True
        return found

    module.anchor_inside_flags = flags


def _prepare_detections(module):
    """Classes and boxes that came from the device: class 0, a box of 10 x 10 pixels."""
    import torch

    process = module.CocoMetric.process

    def valid(self, data_batch, data_samples):
        for sample in data_samples:
            found = sample['pred_instances']
            count = len(found['labels'])
            found['labels'] = torch.zeros(count, dtype=torch.int64)
            found['bboxes'] = torch.tensor([[0.0, 0.0, 10.0, 10.0]]).repeat(count, 1)
            found['scores'] = torch.full((count,), 0.5)
        process(self, data_batch, data_samples)

    module.CocoMetric.process = valid


def _prepare_masks(module):
    """Run lengths that come from the device: those of empty masks."""
    changes = module.changes_on_device

    def none(masks):
        places, runs = changes(masks)
        return places[:0], runs * 0

    module.changes_on_device = none


def _prepare_curves(module):
    """Relative differences of losses that are all zero."""
    module._difference = lambda curve, reference: (0.0, 0.0)


def _prepare_steps(module):
    """The same."""
    parity = module.parity

    def ran(found, setting):
        try:
            return parity(found, setting)
        except ZeroDivisionError:
            return dict.fromkeys(found, 0.0)

    module.parity = ran


_AFTER_IMPORT = {
    'mim_mm.benchmarks.curve': _prepare_curves,
    'mim_mm.benchmarks.step': _prepare_steps,
    'mim_mm.detection.rle': _prepare_masks,
    'mmdet.models.dense_heads.anchor_head': _prepare_anchors,
    'mmdet.evaluation.metrics.coco_metric': _prepare_detections,
}


class _Finder:
    """First in line, finds nothing itself: what the others find is followed by our preparation."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name not in _AFTER_IMPORT:
            return None
        others = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not cls)
        spec = next((spec for spec in others if spec is not None), None)
        if spec is not None:
            execute = spec.loader.exec_module

            def exec_module(module):
                execute(module)
                _AFTER_IMPORT[name](module)

            spec.loader.exec_module = exec_module
        return spec


if os.environ.get('STANDIN_GPU'):
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # torch says that a kernel is replaced
        _prepare_torch(torch)
    sys.meta_path.insert(0, _Finder)
