"""k-NN over two gloo processes finds what one process finds, whatever part each holds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from knn_data import CONFIG, clouds, colour_images
from processes import ANY_PORT, in_process, join, spawn, store

from mim_mm.evaluation.frozen.features import FolderImages, Preprocess
from mim_mm.evaluation.frozen.knn import knn_accuracy
from mim_mm.evaluation.frozen.sharded_knn import sharded_knn_accuracy, total

ROOT = Path(__file__).resolve().parents[2]
KS = (1, 5, 20)
# where the bank (50) and the queries (23) are cut: evenly, k above the smaller part, nothing at all in the first part
CUTS = [(25, 11), (3, 20), (0, 0), (50, 23)]


def one_process(rank, port, folder):
    """What each process does: its side of every cut, and a mistake that both must notice."""
    join(rank, port)
    (bank, labels), (queries, truth) = clouds(50), clouds(23, seed=1)
    found = {}
    for bank_cut, query_cut in CUTS:
        a, b = (slice(bank_cut), slice(query_cut)) if rank == 0 else (slice(bank_cut, None), slice(query_cut, None))
        parts = (bank[a], labels[a], queries[b], truth[b])
        result = sharded_knn_accuracy(*parts, num_classes=6, ks=KS, query_chunk=4, bank_chunk=7)
        found[f'{bank_cut},{query_cut}'] = list(result.values())
    assert total(rank + 5) == 11
    with pytest.raises(ValueError, match='k = 51 must be 1 to 50'):
        sharded_knn_accuracy(*parts, num_classes=6, ks=(51,))
    (Path(folder) / f'{rank}.json').write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


def test_equal_to_one_process_for_any_parts(tmp_path):
    with store() as port:
        spawn(one_process, port, str(tmp_path))
    (bank, labels), (queries, truth) = clouds(50), clouds(23, seed=1)
    alone = list(knn_accuracy(bank, labels, queries, truth, 6, ks=KS).values())
    assert 20 < alone[1]['top1'] < 100
    for rank in range(2):
        found = json.loads((tmp_path / f'{rank}.json').read_text())
        assert found == {f'{a},{b}': alone for a, b in CUTS}


def test_without_a_group_it_is_the_plain_one():
    (bank, labels), (queries, truth) = clouds(50), clouds(23, seed=1)
    plain = knn_accuracy(bank, labels, queries, truth, 6, ks=KS)
    assert sharded_knn_accuracy(bank, labels, queries, truth, 6, ks=KS, query_chunk=5) == plain


@pytest.mark.slow
def test_shares_of_a_folder_are_consecutive_and_complete(tmp_path):
    colour_images(tmp_path)
    preprocess = Preprocess(36, 32)
    whole = FolderImages(tmp_path, 'train', preprocess)
    parts = [FolderImages(tmp_path, 'train', preprocess, share=(i, 4)) for i in range(4)]
    assert [len(p) for p in parts] == [3, 4, 4, 4] and sum((p.items for p in parts), []) == whole.items
    assert torch.equal(parts[2][1][0], whole[8][0]) and parts[2][1][1] == whole[8][1]
    assert parts[0].classes == whole.classes and len({p.digest() for p in (*parts, whole)}) == 5
    with pytest.raises(ValueError, match='15 images, not enough for part 0 of 16'):
        FolderImages(tmp_path, 'train', preprocess, share=(0, 16))


def test_the_command_on_two_processes(tmp_path):
    colour_images(tmp_path / 'data')
    (tmp_path / 'tiny.py').write_text(CONFIG)
    options = ['--data-root', 'data', '--workers', '0', '--device', 'cpu', '--k', '1', '5', '10']
    environment = {**os.environ, 'PYTHON': sys.executable, 'PORT': ANY_PORT}
    command = [str(ROOT / 'tools/dist_knn.sh'), 'tiny.py', 'random', '2', *options, '--work-dir', 'two']
    calls = {
        'one': in_process('knn.py', 'tiny.py', 'random', *options, '--work-dir', 'one', cwd=tmp_path),
        'two': subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True),
    }
    results = {}
    for name, done in calls.items():
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count('6 queries, bank of 15') == 1, 'one process prints'
        results[name] = json.loads((tmp_path / name / 'knn.json').read_text())
    one, two = results['one'], results['two']
    assert (one['processes'], two['processes']) == (1, 2)
    assert two['accuracy'] == one['accuracy'] and (two['bank'], two['queries']) == (15, 6)
    assert len(list((tmp_path / 'two/features').glob('train-*.pth'))) == 2, 'each keeps its own part'
    usage = subprocess.run([str(ROOT / 'tools/dist_knn.sh'), 'tiny.py'], capture_output=True, text=True)
    assert usage.returncode == 2 and 'CONFIG CHECKPOINT GPUS' in usage.stderr
