"""When the stand-in answers, when it steps aside, and what a missing op says."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from mmcv import ops
from mmcv.utils import collect_env, ext_loader

from mim_mm.compat import MissingOpError, ops_source

ROOT = Path(__file__).resolve().parents[2]


def python(code, *arguments):
    """Runs ``code`` in a fresh interpreter, in which nothing of mmcv is imported yet."""
    return subprocess.run(
        [sys.executable, '-c', textwrap.dedent(code), *map(str, arguments)], cwd=ROOT, capture_output=True, text=True
    )


def test_importing_the_package_is_cheap():
    done = python("""
        import sys, mim_mm
        print([name for name in ('torch', 'mmengine', 'mmcv', 'mmdet', 'mmpretrain') if name in sys.modules])
    """)
    assert done.stdout.strip() == '[]', done.stderr


def test_without_the_package_there_is_no_extension():
    # the premise of everything here; where mmcv has compiled ops these tests exercise the compiled ones instead
    done = python("""
        import importlib.util, mmcv
        print(importlib.util.find_spec('mmcv._ext') is None)
    """)
    if done.stdout.strip() == 'False':
        pytest.skip('mmcv has compiled ops here')
    assert done.stdout.strip() == 'True', done.stderr


def test_a_compiled_extension_wins(tmp_path):
    # importing from mmcv's own folders is what finds a compiled one; the marker shows which module answered
    (tmp_path / '_ext.py').write_text('def nms(*args, **kwargs):\n    return "compiled"\n')
    done = python(
        """
        import sys, mim_mm, mmcv
        mmcv.__path__.insert(0, sys.argv[1])
        import mmcv._ext
        print(mmcv._ext.nms(), 'mim_mm.compat.ops' in sys.modules)
        """,
        tmp_path,
    )
    assert done.stdout.split() == ['compiled', 'False'], done.stderr


def test_a_broken_compiled_extension_is_not_hidden(tmp_path):
    (tmp_path / '_ext.py').write_text('raise ImportError("undefined symbol: _ZN3c10")\n')
    done = python(
        """
        import sys, mim_mm, mmcv
        mmcv.__path__.insert(0, sys.argv[1])
        from mim_mm.compat import ops_source
        try:
            ops_source()
        except ImportError as error:
            print('raised', error)
        """,
        tmp_path,
    )
    assert done.stdout.strip() == 'raised undefined symbol: _ZN3c10', done.stderr


def test_import_after_mmdet_warns():
    done = python("""
        import sys, types, warnings
        sys.modules['mmdet.utils'] = types.ModuleType('mmdet.utils')
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            import mim_mm
        print([str(w.message) for w in caught if 'mim_mm' in str(w.message)])
    """)
    assert 'import mim_mm` first' in done.stdout, done.stderr


def test_installing_twice_adds_one_finder():
    import mim_mm.compat

    before = len(sys.meta_path)
    mim_mm.compat.install()
    assert len(sys.meta_path) == before


def test_every_op_has_a_source():
    sources = ops_source()
    if set(sources.values()) == {'compiled'}:
        pytest.skip('mmcv has compiled ops here')
    assert sources['nms'] == sources['roi_align_forward'] == 'torchvision'
    assert sources['sigmoid_focal_loss_forward'] == 'torch'
    assert sources['nms_rotated'] == 'missing'
    ext = ext_loader.load_ext('_ext', list(sources))
    missing = {name for name, source in sources.items() if source == 'missing'}
    for name in sources:
        assert callable(getattr(ext, name))
    for name in sorted(missing):
        with pytest.raises(MissingOpError, match=name):
            getattr(ext, name)(1, key=2)


def test_a_missing_op_says_how_to_get_it():
    boxes = torch.rand(3, 5)
    with pytest.raises(MissingOpError) as caught:
        ops.nms_rotated(boxes, torch.rand(3), 0.5)
    message = str(caught.value)
    assert 'nms_rotated' in message and 'rotated boxes' in message
    assert 'mim install' in message and 'MMCV_WITH_OPS=1' in message and 'docs/install.md' in message
    assert isinstance(caught.value, NotImplementedError)


def test_max_pooling_roi_align_is_refused():
    with pytest.raises(MissingOpError, match="pool_mode='max'.*pool_mode='avg'"):
        ops.roi_align(torch.rand(1, 1, 4, 4), torch.tensor([[0.0, 0, 0, 3, 3]]), (2, 2), 1.0, 0, 'max', True)


def test_mmcv_environment_report_works():
    environment = collect_env()
    assert 'stand-in' in environment['MMCV Compiler']
