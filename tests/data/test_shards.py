"""Tar shards: the same bytes twice, whole or not at all, read in place; streamed, every image once over all readers."""

import functools
import hashlib
import http.server
import io
import json
import random
import shutil
import subprocess
import sys
import tarfile
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from mmengine.dataset import default_collate
from PIL import Image
from processes import in_process
from torch.utils.data import DataLoader

from mim_mm.data import shards
from mim_mm.data.image_sources import SourceError, open_source
from mim_mm.data.shards import plan_shards, write_shards
from mim_mm.engine.stop.seeded_data import SeededLoader

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('MIM_MM_CACHE', str(tmp_path / 'cache'))


@pytest.fixture
def images(tmp_path):
    """24 images of one grey value each, 10 i, in folders; names with dots, blanks and one key for two files."""
    root = tmp_path / 'images'
    for i in range(24):
        folder = root / ('a', 'b.c', 'd e')[i % 3]
        folder.mkdir(parents=True, exist_ok=True)
        out = io.BytesIO()
        Image.new('RGB', (20, 16), (10 * i,) * 3).save(out, 'JPEG')
        name = {3: 'x.y.JPEG', 6: 'x_y.jpeg', 9: 'x.jpg', 12: 'x.jpeg'}.get(i, f'{i:02d}.jpg')
        (folder / name).write_bytes(out.getvalue())
    return root


def quiet(text):
    return None


def hashes(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in Path(folder).iterdir()}


def test_shards_hold_every_image_once_under_a_key_of_its_own(images, tmp_path):
    plan = plan_shards(open_source(str(images)), 10)
    assert write_shards(plan, tmp_path / 's', quiet) == 3
    found, keys = [], set()
    for name, count in (('train-000000.tar', 10), ('train-000001.tar', 10), ('train-000002.tar', 4)):
        with tarfile.open(tmp_path / 's' / name) as tar:
            members = tar.getmembers()
            assert len(members) == count
            for member in members:
                key, dot, suffix = member.name.rpartition('/')[2].partition('.')
                assert dot and suffix in ('jpg', 'jpeg') and (member.mtime, member.uid) == (0, 0)
                keys.add(f'{member.name.rpartition("/")[0]}/{key}')
                found.append(tar.extractfile(member).read())
    assert Counter(found) == Counter(p.read_bytes() for p in images.rglob('*.*') if p.is_file())
    assert len(keys) == 24
    listed = json.loads((tmp_path / 's/shards.json').read_text())
    assert listed['images'] == 24 and len(listed['shards']) == 3


def test_same_bytes_twice_and_another_seed_another_order(images, tmp_path):
    for folder, seed in (('a', 0), ('b', 0), ('c', 1), ('d', None)):
        write_shards(plan_shards(open_source(str(images)), 10, seed), tmp_path / folder, quiet)
    made = {folder: hashes(tmp_path / folder) for folder in 'abcd'}
    assert made['a'] == made['b'] and made['a'] != made['c']
    with tarfile.open(tmp_path / 'd/train-000000.tar') as tar:
        assert all(name.startswith(('a/', 'b.c/')) for name in tar.getnames())  # in the order of the names


def test_an_interrupted_run_goes_on(images, tmp_path, monkeypatch):
    plan = plan_shards(open_source(str(images)), 8)
    write_shards(plan, tmp_path / 'whole', quiet)
    real, calls = shards._write_tar, []

    def killed_in_the_second(path, rows):
        real(path, rows[: len(rows) // 2] if calls else rows)
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(shards, '_write_tar', killed_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        write_shards(plan, tmp_path / 's', quiet)
    assert sorted(p.name for p in (tmp_path / 's').iterdir()) == ['shards.json', 'train-000000.tar']
    monkeypatch.setattr(shards, '_write_tar', real)
    assert write_shards(plan, tmp_path / 's', quiet) == 2
    assert hashes(tmp_path / 's') == hashes(tmp_path / 'whole')
    assert write_shards(plan, tmp_path / 's', quiet) == 0


def test_other_sets_and_foreign_folders_are_left_alone(images, tmp_path):
    source = open_source(str(images))
    write_shards(plan_shards(source, 8), tmp_path / 's', quiet)
    before = hashes(tmp_path / 's')
    with pytest.raises(SourceError, match='images_per_shard.* differ'):
        write_shards(plan_shards(source, 9), tmp_path / 's', quiet)
    next(images.rglob('05.jpg')).write_bytes(b'other')
    with pytest.raises(SourceError, match='names_and_sizes_sha256'):
        write_shards(plan_shards(source, 8), tmp_path / 's', quiet)
    assert hashes(tmp_path / 's') == before
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/thesis.tar').write_bytes(b'precious')
    with pytest.raises(SourceError, match='thesis.tar'):
        write_shards(plan_shards(source, 8), tmp_path / 'mine', quiet)
    assert [p.name for p in (tmp_path / 'mine').iterdir()] == ['thesis.tar']


def test_images_that_vanish_and_empty_ones(images, tmp_path):
    next(images.rglob('04.jpg')).write_bytes(b'')
    plan = plan_shards(open_source(str(images)), 12, seed=None)
    assert (plan.summary['images'], plan.summary['empty_files_left_out']) == (23, 1)
    next(images.rglob('23.jpg')).unlink()
    with pytest.raises(SourceError, match='23.jpg.*finished shards are kept'):
        write_shards(plan, tmp_path / 's', quiet)
    assert (tmp_path / 's/train-000000.tar').exists() and not list((tmp_path / 's').glob('.*'))
    for bad, message in ((dict(images_per_shard=0), 'at least 1'), (dict(name='a/b'), "name 'a/b'")):
        with pytest.raises(SourceError, match=message):
            plan_shards(open_source(str(images)), **bad)


def test_the_tool_and_reading_in_place(images, tmp_path):
    out = tmp_path / 's'
    command = [sys.executable, str(ROOT / 'tools/make_shards.py'), str(images), str(out), '--images-per-shard', '7']
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert '24 images in 4 shards' in done.stdout
    assert '(4 were there already)' in in_process('make_shards.py', *command[2:]).stdout
    from mim_mm.data.own_images import OwnImages

    pipeline = [dict(type='mim_mm.LazyLoadImageFromFile'), dict(type='mim_mm.FastRandomResizedCrop', scale=8)]
    found = OwnImages(str(out), shards='*.tar', pipeline=[*pipeline, dict(type='mim_mm.PackImage')])
    values = [round(found[i]['inputs'].float().mean().item()) for i in np.random.default_rng(0).permutation(24)]
    assert sorted(values) == [10 * i for i in range(24)]


# ---------------------------------------------------------------- streaming


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def served(images, tmp_path, monkeypatch):
    """Eight shards of three images each behind a server on this machine; the URL with braces."""
    pytest.importorskip('webdataset')
    if not shutil.which('curl'):
        pytest.skip('webdataset reads URLs through curl')
    for name in ('http_proxy', 'HTTP_PROXY', 'all_proxy', 'ALL_PROXY'):
        monkeypatch.delenv(name, raising=False)
    write_shards(plan_shards(open_source(str(images)), 3), tmp_path / 's', quiet)
    handler = functools.partial(Quiet, directory=str(tmp_path / 's'))
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f'http://127.0.0.1:{server.server_port}/train-{{000000..000007}}.tar'
    server.shutdown()
    server.server_close()
    thread.join()


STEPS = [dict(type='mim_mm.LazyLoadImageFromFile'), dict(type='mim_mm.FastRandomResizedCrop', scale=8)]
STEPS += [dict(type='mim_mm.PackImage')]


def stream(urls, **options):
    from mim_mm.data.streaming import StreamedImages

    options = dict(dict(images=24, batch_size=3, pipeline=STEPS, buffer=4), **options)
    return StreamedImages(urls, **options)


def values(batch):
    return [round(v) for v in batch['inputs'].float().mean((1, 2, 3)).tolist()]


def test_every_image_once_over_all_ranks_and_workers(served):
    """8 shards, 2 ranks x 2 workers; a second epoch has another order, in workers that stay and in new ones."""
    epochs = []
    for rank in range(2):
        found = stream(served, rank=rank, world_size=2)
        loader = DataLoader(found, 3, num_workers=2, collate_fn=default_collate, drop_last=True)
        assert len(loader) == 4
        for epoch in range(2):
            batches = [values(batch) for batch in loader]
            assert [len(b) for b in batches] == [3] * 4
            epochs.append((epoch, batches))
    everything = [10 * i for i in range(24)]
    for epoch in range(2):
        assert sorted(v for e, batches in epochs if e == epoch for b in batches for v in b) == everything
    assert epochs[0][1] != epochs[1][1]


def test_runs_are_repeatable_and_epochs_can_be_set(served):
    first, again = stream(served), stream(served)
    orders = [[values(dict(inputs=s['inputs'][None])) for s in first] for _ in range(2)]
    assert orders[0] != orders[1]
    again.set_epoch(1)
    assert [values(dict(inputs=s['inputs'][None])) for s in again] == orders[1]
    assert len(again) == 24 and len(stream(served, images=25)) == 24


def test_readers_that_run_out_begin_again_and_broken_shards_are_left(served, tmp_path):
    whole = (tmp_path / 's/train-000002.tar').read_bytes()
    (tmp_path / 's/train-000002.tar').write_bytes(whole[:700])  # ends inside of its first image
    (tmp_path / 's/train-000005.tar').unlink()
    found = [values(dict(inputs=s['inputs'][None]))[0] for s in stream(served)]
    counts = Counter(found)
    assert len(found) == 24 and len(counts) == 18 and set(counts.values()) <= {1, 2}


@pytest.mark.parametrize('workers', [0, 2])
def test_a_stream_goes_on_in_its_epoch(served, workers):
    """From any batch; what is drawn for an image depends on epoch and image, not on the reader or what it read."""

    def draw(sample):
        return None if sample['name'].startswith('b.c/x') else (sample['name'], np.random.random(), random.random())

    def epoch_from(batches, number=1, workers=workers):
        loader = DataLoader(stream(served, pipeline=[draw]), 3, num_workers=workers, collate_fn=list)
        loaded = SeededLoader(loader, seed=0)
        loaded.begin(number, batches)
        return list(loader)

    whole = epoch_from(0)
    assert len(whole) == 8 and epoch_from(0, 2) != whole
    for batches in (1, 4, 7):
        np.random.random(), random.random()
        assert epoch_from(batches) == whole[batches:]
    drawn = [{one[0]: one for batch in epoch_from(0, 1, readers) for one in reversed(batch)} for readers in (0, 1, 2)]
    both = drawn[0].keys() & drawn[1].keys() & drawn[2].keys()
    assert len(both) > 10 and all(drawn[0][name] == drawn[1][name] for name in both)


def test_what_cannot_work_is_refused(served, tmp_path, monkeypatch):
    with pytest.raises(SourceError, match='8 shards for 9 readers'):
        stream(served).own_urls(0, 0, 9)
    with pytest.raises(SourceError, match='not one batch'):
        stream(served, batch_size=25)
    with pytest.raises(SourceError, match='none of 2 shards gives an image'):
        next(iter(stream([str(tmp_path / 'no.tar'), 'pipe:false'])))
    monkeypatch.setitem(sys.modules, 'webdataset', None)
    with pytest.raises(ImportError, match=r'mim_mm\[stream\]'):
        stream(served)


def test_pipes_and_paths(served, tmp_path):
    folder = tmp_path / 's'
    urls = [f'pipe:cat {folder}/train-00000{i}.tar' for i in range(4)] + [f'{folder}/train-00000{{4..7}}.tar']
    found = sorted(values(dict(inputs=s['inputs'][None]))[0] for s in stream(urls))
    assert found == [10 * i for i in range(24)]
