"""What is installed, what is missing, and the exact fix; printed by ``tools/doctor.py``."""

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

from mim_mm.compat import finder, multimodal
from mim_mm.folders import subfolders


class Status(str, Enum):
    OK = 'ok'
    WARNING = 'warning'  # something does not work or is not there; training does
    PROBLEM = 'problem'


# module -> (names it is distributed under, lowest version that works)
PACKAGES = {
    'torch': (('torch',), '2.4'),
    'torchvision': (('torchvision',), '0.19'),
    'mmengine': (('onedl-mmengine', 'mmengine', 'mmengine-lite'), '0.10.7'),
    'mmcv': (('onedl-mmcv', 'mmcv', 'mmcv-lite'), '2.1.0'),
    'mmpretrain': (('onedl-mmpretrain', 'mmpretrain'), '1.2.0'),
    'mmdet': (('onedl-mmdetection', 'mmdet'), '3.3.0'),
    'numpy': (('numpy',), '1.26'),
    'cv2': (('opencv-python-headless', 'opencv-python'), '4.5'),
    'pycocotools': (('pycocotools',), '2.0.7'),
    'matplotlib': (('matplotlib',), '3.8'),
    'sklearn': (('scikit-learn',), '1.4'),
}
# what a Mask R-CNN step calls, in the order of the forward pass
DETECTION_OPS = ('nms', 'roi_align_forward', 'roi_align_backward', 'sigmoid_focal_loss_forward', 'deform_conv_forward')
IMAGENET_LAYOUT = 'train/<class>/*.JPEG and val/<class>/*.JPEG'
COCO_LAYOUT = (
    'annotations/instances_train2017.json, annotations/instances_val2017.json, train2017/*.jpg and val2017/*.jpg'
)
ADE20K_LAYOUT = 'images/{training,validation}/*.jpg and annotations/{training,validation}/*.png'
GIB = 2**30


@dataclass
class Finding:
    """One line of the report; ``fix`` is a command or an instruction."""

    section: str
    name: str
    status: Status
    value: str
    fix: str = ''


def _numbers(version):
    return tuple(int(part) for part in re.findall(r'\d+', version.split('+')[0])[:3])


def _distribution(names):
    for name in names:
        try:
            return name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None, None


def check_python():
    version = platform.python_version()
    good = (3, 10) <= sys.version_info[:2] < (3, 13)
    yield Finding(
        'versions',
        'python',
        Status.OK if good else Status.PROBLEM,
        f'{version} ({sys.executable})',
        '' if good else 'use Python 3.10, 3.11 or 3.12: make PYTHON=python3.11 setup',
    )
    if importlib.util.find_spec('distutils') is None:
        yield Finding(
            'versions', 'distutils', Status.PROBLEM, 'missing, and mmengine imports it', "pip install 'setuptools<81'"
        )


def check_packages():
    for module, (names, lowest) in PACKAGES.items():
        name, version = _distribution(names)
        install = f'pip install -c constraints.txt {names[0]}'
        if version is None:
            yield Finding('versions', module, Status.PROBLEM, 'not installed', install)
        elif _numbers(version) < _numbers(lowest):
            yield Finding(
                'versions', module, Status.PROBLEM, f'{version} ({name}), {lowest} or later is needed', install
            )
        else:
            yield Finding('versions', module, Status.OK, f'{version} ({name})')
    yield _check_segmentation()
    yield from _check_imports()


def _check_segmentation():
    """The extra ``[seg]``, which only the recipes of configs/seg need."""
    name, version = _distribution(('onedl-mmsegmentation', 'mmsegmentation'))
    if version is None:
        fix = "pip install 'mim_mm[seg]', for configs/seg alone"
        return Finding('versions', 'mmseg', Status.WARNING, 'not installed; segmentation needs it', fix)
    return Finding('versions', 'mmseg', Status.OK, f'{version} ({name})')


def _check_imports():
    """Packages that are there and yet do not work."""
    name, version = _distribution(('mmengine',))
    if version and importlib.util.find_spec('pkg_resources') is None:
        yield Finding(
            'versions',
            'pkg_resources',
            Status.PROBLEM,
            f'missing, and mmengine {version} needs it',
            "pip install 'setuptools<81'",
        )
    _, transformers = _distribution(('transformers',))
    if transformers and _numbers(transformers) >= (multimodal.FIRST_UNKNOWN,):
        yield Finding(
            'versions',
            'transformers',
            Status.WARNING,
            f"{transformers}: mmpretrain's multimodal models do not know it and are left out",
            "nothing here needs them; for BLIP, OFA and others: pip install 'transformers<5'",
        )
    fixes = {
        'cv2': 'pip install --force-reinstall --no-deps opencv-python-headless  # the one without libGL',
        'torchvision': 'pip install -c constraints.txt torch torchvision  # a pair built for one another',
        'mmpretrain': 'pip install -c constraints.txt -e .',
    }
    for module, fix in fixes.items():
        if importlib.util.find_spec(module) is None:
            continue  # reported above
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever an import can raise is the finding
            yield Finding('versions', f'import {module}', Status.PROBLEM, f'{type(error).__name__}: {error}', fix)


def check_ops():
    try:
        sources = finder.ops_source()
    except ImportError as error:
        broken = importlib.util.find_spec('mmcv') is not None
        fix = (
            'the compiled mmcv was built for another torch; remove it and take the pure Python one: '
            'pip uninstall -y mmcv onedl-mmcv && pip install -c constraints.txt onedl-mmcv'
            if broken
            else 'pip install -c constraints.txt onedl-mmcv'
        )
        yield Finding('mmcv ops', 'mmcv._ext', Status.PROBLEM, str(error), fix)
        return
    counts = {source: sum(value == source for value in sources.values()) for source in sorted(set(sources.values()))}
    kind = 'compiled' if set(counts) == {'compiled'} else 'stand-in of mim_mm (torchvision)'
    yield Finding(
        'mmcv ops', 'mmcv._ext', Status.OK, f'{kind}: ' + ', '.join(f'{n} {source}' for source, n in counts.items())
    )
    for name in DETECTION_OPS:
        source = sources.get(name, 'missing')
        fix = '' if source != 'missing' else 'see docs/install.md, "Compiled ops"'
        yield Finding('mmcv ops', name, Status.OK if source != 'missing' else Status.PROBLEM, source, fix)
    try:
        importlib.import_module('mmdet.models')
    except Exception as error:
        fix = 'install the versions of constraints.txt: pip install -c constraints.txt -e .'
        yield Finding('mmcv ops', 'import mmdet.models', Status.PROBLEM, f'{type(error).__name__}: {error}', fix)
    else:
        yield Finding('mmcv ops', 'import mmdet.models', Status.OK, 'works')


def _cpu_flags():
    try:
        text = Path('/proc/cpuinfo').read_text()
    except OSError:
        return set()
    found = re.search(r'^(?:flags|Features)\s*:(.*)$', text, re.M)
    return set(found.group(1).split()) if found else set()


def check_devices():
    try:
        torch = importlib.import_module('torch')
    except Exception:
        return  # reported among the versions
    if not torch.cuda.is_available():
        built = torch.version.cuda
        value = f'none visible (torch {torch.__version__}, ' + (f'CUDA {built})' if built else 'built without CUDA)')
        fix = 'on a GPU node: check nvidia-smi, and that the driver supports the CUDA version above'
        yield Finding('devices', 'gpu', Status.WARNING, value, '' if not _nvidia_present() else fix)
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        native = (properties.major, properties.minor) >= (8, 0)
        value = (
            f'{properties.name}, {properties.total_memory / GIB:.0f} GiB, capability {properties.major}.'
            f'{properties.minor}; fp16 yes, bf16 {"yes" if native else "emulated and slow"}'
        )
        fix = '' if native else 'use fp16: --cfg-options optim_wrapper.type=AmpOptimWrapper'
        yield Finding('devices', f'gpu {index}', Status.OK if native else Status.WARNING, value, fix)
    flags = _cpu_flags()
    bf16 = [flag for flag in ('amx_bf16', 'avx512_bf16', 'bf16') if flag in flags]
    value = f'{os.cpu_count()} cores, bf16 ' + (f'in hardware ({bf16[0]})' if bf16 else 'emulated: fp32 is faster')
    yield Finding('devices', 'cpu', Status.OK, value)


def _nvidia_present():
    return Path('/proc/driver/nvidia/version').exists() or shutil.which('nvidia-smi') is not None


def check_disk(folder='.'):
    free = shutil.disk_usage(folder).free / GIB
    value = f'{free:.0f} GiB free at {Path(folder).resolve()}'
    if free < 1:
        fix = 'free some space, or write elsewhere with --work-dir'
        yield Finding('disk', 'free', Status.PROBLEM, value, fix)
    elif free < 20:
        fix = 'a ViT-B checkpoint with its optimizer state takes over 1 GiB: write elsewhere with --work-dir'
        yield Finding('disk', 'free', Status.WARNING, value, fix)
    else:
        yield Finding('disk', 'free', Status.OK, value)


def _has_class_folders(folder):
    return folder.is_dir() and bool(subfolders(folder))


def check_imagenet(root):
    if not root.is_dir():
        fix = f'lay it out as {root}/{{train,val}}/<class>/*.JPEG, link it there, or export IMAGENET_ROOT=/path/to/it'
        return Finding('data', 'imagenet', Status.WARNING, f'{root} does not exist', fix)
    missing = [part for part in ('train', 'val') if not _has_class_folders(root / part)]
    if missing:
        value = f'{root}: no class folders in {" and ".join(missing)}'
        return Finding('data', 'imagenet', Status.WARNING, value, f'the layout is {IMAGENET_LAYOUT}')
    train, val = (subfolders(root / part) for part in ('train', 'val'))
    strange, lacking = sorted(set(val) - set(train)), sorted(set(train) - set(val))
    if strange:
        value = f'{root}: val has {len(strange)} class folders that train lacks, e.g. {strange[0]}'
        fix = 'labels are numbered by the folders of train: add or remove them'
        return Finding('data', 'imagenet', Status.PROBLEM, value, fix)
    if lacking:
        value = f'{root}: {len(train)} class folders in train, {len(val)} in val'
        return Finding(
            'data', 'imagenet', Status.WARNING, value, f'val has no image of {len(lacking)}, e.g. {lacking[0]}'
        )
    return Finding('data', 'imagenet', Status.OK, f'{root}, {len(train)} classes')


def check_coco(root):
    if not root.is_dir():
        fix = f'lay it out as {root}/{{annotations,train2017,val2017}}, link it there, or export COCO_ROOT=/path/to/it'
        return Finding('data', 'coco', Status.WARNING, f'{root} does not exist', fix)
    files = ('annotations/instances_train2017.json', 'annotations/instances_val2017.json')
    missing = [part for part in files if not (root / part).is_file()]
    missing += [part for part in ('train2017', 'val2017') if not (root / part).is_dir()]
    if missing:
        return Finding(
            'data', 'coco', Status.WARNING, f'{root}: no {", ".join(missing)}', f'the layout is {COCO_LAYOUT}'
        )
    return Finding('data', 'coco', Status.OK, str(root))


def check_ade20k(root):
    if not root.is_dir():
        fix = f'lay it out as {root}/{{images,annotations}}, link it there, or export ADE20K_ROOT=/path/to/it'
        return Finding('data', 'ade20k', Status.WARNING, f'{root} does not exist', fix)
    parts = [f'{top}/{part}' for top in ('images', 'annotations') for part in ('training', 'validation')]
    missing = [part for part in parts if not (root / part).is_dir()]
    if missing:
        value = f'{root}: no {", ".join(missing)}'
        return Finding('data', 'ade20k', Status.WARNING, value, f'the layout is {ADE20K_LAYOUT}')
    return Finding('data', 'ade20k', Status.OK, str(root))


def check_data():
    yield check_imagenet(Path(os.environ.get('IMAGENET_ROOT') or 'data/imagenet'))
    yield check_coco(Path(os.environ.get('COCO_ROOT') or 'data/coco'))
    yield check_ade20k(Path(os.environ.get('ADE20K_ROOT') or 'data/ade20k'))


def examine():
    """All findings, in the order in which they are printed."""
    checks = (check_python, check_packages, check_ops, check_devices, check_disk, check_data)
    return [finding for check in checks for finding in check()]


def can_train(findings):
    """No problem among them; warnings (no GPU, no data set yet) do not stop a training run as such."""
    return all(finding.status != Status.PROBLEM for finding in findings)


def as_json(findings):
    return {'can_train': can_train(findings), 'findings': [asdict(finding) for finding in findings]}


def as_text(findings):
    """Sections with one aligned line a finding and its fix below."""
    marks = {Status.OK: '  ok  ', Status.WARNING: ' warn ', Status.PROBLEM: ' FAIL '}
    width = max(len(finding.name) for finding in findings)
    lines, section = [], None
    for finding in findings:
        if finding.section != section:
            section = finding.section
            lines += ['', section]
        lines.append(f'{marks[finding.status]} {finding.name:<{width}}  {finding.value}')
        if finding.fix:
            lines.append(f'{"":6} {"":<{width}}  fix: {finding.fix}')
    problems = sum(finding.status == Status.PROBLEM for finding in findings)
    warnings = sum(finding.status == Status.WARNING for finding in findings)
    verdict = 'training can run' if can_train(findings) else f'training cannot run: {problems} to fix'
    return '\n'.join([*lines[1:], '', f'{verdict} ({warnings} warnings)'])
