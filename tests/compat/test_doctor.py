"""The doctor's findings: on this machine, on laid-out data, and on installations broken on purpose."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mim_mm.compat import doctor

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'doctor.py'


def run(cwd, *arguments, **environment):
    return subprocess.run(
        [sys.executable, str(TOOL), *arguments],
        cwd=cwd,
        env={**os.environ, **{key: str(value) for key, value in environment.items()}},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def imagenet(tmp_path):
    root = tmp_path / 'in1k'
    for part in ('train', 'val'):
        for name in ('n01440764', 'n01443537'):
            (root / part / name).mkdir(parents=True)
    return root


@pytest.fixture
def coco(tmp_path):
    root = tmp_path / 'coco'
    for part in ('annotations', 'train2017', 'val2017'):
        (root / part).mkdir(parents=True)
    for part in ('train', 'val'):
        (root / 'annotations' / f'instances_{part}2017.json').write_text('{}')
    return root


def test_a_working_installation(tmp_path, imagenet, coco):
    done = run(tmp_path, '--json', IMAGENET_ROOT=imagenet, COCO_ROOT=coco)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report['can_train']
    found = {finding['name']: finding for finding in report['findings']}
    assert found['imagenet']['status'] == found['coco']['status'] == 'ok'
    assert '2 classes' in found['imagenet']['value']
    assert found['roi_align_forward']['value'] in ('torchvision', 'compiled')
    assert found['import mmdet.models']['status'] == 'ok'
    assert {'torch', 'mmcv', 'python', 'cpu', 'free'} <= set(found)


def test_text_report_and_missing_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('IMAGENET_ROOT', str(tmp_path / 'none'))
    monkeypatch.setenv('COCO_ROOT', '')
    monkeypatch.setenv('ADE20K_ROOT', str(tmp_path / 'ade'))
    findings = [*doctor.check_python(), *doctor.check_data()]
    lines = doctor.as_text(findings).splitlines()
    assert lines[0] == 'versions' and lines[1].startswith('  ok   python')
    (at,) = [i for i, line in enumerate(lines) if f'{tmp_path / "none"} does not exist' in line]
    assert lines[at].startswith(' warn  imagenet') and 'fix: lay it out as' in lines[at + 1]
    assert 'export IMAGENET_ROOT=' in lines[at + 1]
    assert any('data/coco does not exist' in line for line in lines)
    assert lines[-1] == 'training can run (3 warnings)' and doctor.can_train(findings)


def test_a_package_that_does_not_import_fails_the_run(tmp_path):
    (tmp_path / 'cv2.py').write_text('raise ImportError("libGL.so.1: cannot open shared object file")\n')
    done = run(tmp_path, PYTHONPATH=tmp_path)
    assert done.returncode == 1
    assert 'libGL.so.1' in done.stdout and 'opencv-python-headless' in done.stdout
    assert 'training cannot run' in done.stdout.splitlines()[-1]


def test_versions_too_old_or_absent(monkeypatch):
    real = doctor._distribution

    def versions(names):
        changed = {'torch': ('torch', '2.3.1+cu121'), 'pycocotools': (None, None)}
        return changed.get(names[0]) or real(names)

    monkeypatch.setattr(doctor, '_distribution', versions)
    found = {finding.name: finding for finding in doctor.check_packages()}
    assert found['torch'].status == doctor.Status.PROBLEM and '2.4 or later' in found['torch'].value
    assert found['torch'].fix == 'pip install -c constraints.txt torch'
    assert found['pycocotools'].status == doctor.Status.PROBLEM and found['pycocotools'].value == 'not installed'
    assert found['numpy'].status == doctor.Status.OK


@pytest.mark.parametrize('version, told', [('5.2.0', True), ('4.46.3', False), (None, False)])
def test_transformers_that_mmpretrains_multimodal_models_do_not_know(version, told, monkeypatch):
    real = doctor._distribution
    monkeypatch.setattr(
        doctor, '_distribution', lambda names: (names[0], version) if names == ('transformers',) else real(names)
    )
    found = {finding.name: finding for finding in doctor.check_packages()}
    assert ('transformers' in found) == told
    if told:
        assert found['transformers'].status == doctor.Status.WARNING and 'transformers<5' in found['transformers'].fix


def test_versions_compare_as_numbers():
    assert doctor._numbers('2.14.1+cu130') == (2, 14, 1) > doctor._numbers('2.4')
    assert doctor._numbers('2.0.0rc1') < doctor._numbers('2.1.0')


def test_a_compiled_mmcv_of_another_torch(monkeypatch):
    def broken():
        raise ImportError('undefined symbol: _ZN3c10')

    monkeypatch.setattr(doctor.finder, 'ops_source', broken)
    (finding,) = doctor.check_ops()
    assert finding.status == doctor.Status.PROBLEM and 'undefined symbol' in finding.value
    assert 'built for another torch' in finding.fix


def test_imagenet_layouts(tmp_path, imagenet):
    assert doctor.check_imagenet(imagenet).status == doctor.Status.OK
    (imagenet / 'val' / 'n01440764').rmdir()
    assert '2 class folders in train, 1 in val' in doctor.check_imagenet(imagenet).value
    (imagenet / 'val' / 'n01443537').rmdir()
    flat = doctor.check_imagenet(imagenet)
    assert (
        flat.status == doctor.Status.WARNING and 'no class folders in val' in flat.value and 'val/<class>' in flat.fix
    )


def test_coco_layouts(coco):
    assert doctor.check_coco(coco).status == doctor.Status.OK
    (coco / 'annotations' / 'instances_val2017.json').unlink()
    finding = doctor.check_coco(coco)
    assert finding.status == doctor.Status.WARNING and finding.value.endswith('no annotations/instances_val2017.json')


def test_little_disk(monkeypatch):
    usage = type('usage', (), {'free': 5 * doctor.GIB})
    monkeypatch.setattr(doctor.shutil, 'disk_usage', lambda folder: usage)
    (finding,) = doctor.check_disk()
    assert finding.status == doctor.Status.WARNING and '5 GiB' in finding.value
    usage.free = doctor.GIB // 2
    (finding,) = doctor.check_disk()
    assert finding.status == doctor.Status.PROBLEM and not doctor.can_train([finding])
