"""All chains of a folder: found, listed, compared; and superseded runs are deleted only where nothing needs them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from browser import launched, opened
from chain_factory import write_demo_chain, write_run

from mim_mm.locks import FolderLock
from mim_mm.report.overview import chains_table, compare_table, find_chains, superseded_table, write_index
from mim_mm.report.superseded import candidates, delete

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'runs.py'


@pytest.fixture
def root(tmp_path):
    """Two chains, one of them a folder further down, with five superseded runs in the first."""
    write_demo_chain(tmp_path / 'a')
    write_demo_chain(tmp_path / 'study' / 'b', linear_emae=(80.0, 81.0, 82.0))
    (tmp_path / 'plain').mkdir()
    write_run(tmp_path / 'a', 'linear_emae-s0.old-1', 'linear', status='failed')
    write_run(tmp_path / 'a', 'coco_emae.old-1', 'coco')
    (tmp_path / 'a' / 'coco_emae.old-1' / 'iter_1.pth').write_bytes(b'x' * 5_000_000)
    write_run(tmp_path / 'a', 'pretrain.old-1', 'pretrain')  # from which another run started
    parent = dict(stage='pretrain', checkpoint='pretrain.old-1/iter_1.pth', sha256='a' * 64)
    write_run(tmp_path / 'a', 'finetune_emae', 'finetune', arm='emae', metrics={'accuracy/top1': 97.0}, parent=parent)
    write_run(tmp_path / 'a', 'coco_scratch.old-2', 'coco')  # whose successor failed: the only result there is
    write_run(tmp_path / 'a', 'coco_scratch', 'coco', arm='scratch', status='failed')
    write_run(tmp_path / 'a', 'gone.old-1', 'coco')  # of a stage that is no more
    write_run(tmp_path / 'a', 'other', 'coco')  # no successor: not superseded at all
    return tmp_path


def call(*args):
    return subprocess.run([sys.executable, TOOL, *map(str, args)], capture_output=True, text=True)


def test_chains_are_found_wherever_they_lie(root):
    chains = find_chains(root)
    assert [chain.folder.relative_to(root).as_posix() for chain in chains] == ['a', 'study/b']
    assert [chain.folder for chain in find_chains(root / 'a')] == [root / 'a']
    with pytest.raises(FileNotFoundError, match='holds no chain'):
        find_chains(root / 'plain')
    rows = [[cell.text for cell in row] for row in chains_table(chains, root).rows]
    assert rows[0][:5] == ['a', 'emae', 'failed', '86.0 ± 2.0', '97.0']
    assert rows[2][:5] == ['study/b', 'emae', 'done', '81.0 ± 1.0', '97.0']


def test_what_differs_between_chains_is_named(root):
    for folder, lr in (('a', 0.1), ('study/b', 0.2)):
        config = dict(optim_wrapper=dict(lr=lr, betas=[0.9, 0.95]), model=dict(type='MAE'))
        (root / folder / 'pretrain' / 'identity.json').write_text(json.dumps(dict(config=config)))
    table = compare_table(find_chains(root), root)
    assert table.header[2:] == ['a', 'study/b']
    assert [[cell.text for cell in row] for row in table.rows] == [['pretrain', 'optim_wrapper.lr', '0.1', '0.2']]


def test_only_what_nothing_needs_is_deleted(root):
    chains = find_chains(root)
    kept = {item.run.name: item.kept for item in candidates(chains)}
    assert {name for name, why in kept.items() if why is None} == {'linear_emae-s0.old-1', 'coco_emae.old-1'}
    assert 'finetune_emae/run.json names it' == kept['pretrain.old-1']
    assert kept['coco_scratch.old-2'] == 'coco_scratch, which took its place, is failed, not done'
    assert 'no run of the chain' in kept['gone.old-1'] and 'other' not in kept
    assert sum(row[-1].text == 'can be deleted' for row in superseded_table(chains, root).rows) == 2
    before = sorted(root.rglob('*'))
    with FolderLock(root / 'a', 'transfer.lock'), pytest.raises(RuntimeError, match='another process runs in'):
        delete(candidates(chains))
    (root / 'a' / 'transfer.lock').unlink()
    assert sorted(root.rglob('*')) == before
    gone = delete(candidates(chains))
    assert {path.name for path in gone} == {'linear_emae-s0.old-1', 'coco_emae.old-1'}
    left = {path.name for path in (root / 'a').iterdir()}
    assert {'coco_emae', 'linear_emae-s0', 'pretrain.old-1', 'coco_scratch.old-2', 'gone.old-1', 'other'} <= left
    assert not {path.name for path in gone} & left


def test_a_link_is_never_followed(root, tmp_path_factory):
    elsewhere = write_run(tmp_path_factory.mktemp('elsewhere'), 'precious', 'linear', status='done')
    (root / 'a' / 'linear_emae-s1.old-1').symlink_to(elsewhere)
    found = [item for item in candidates(find_chains(root)) if item.run.name == 'linear_emae-s1.old-1']
    assert [item.kept for item in found] == ['it is a link']
    delete(found)
    assert (elsewhere / 'run.json').is_file()


def test_damaged_records_never_free_a_run(root):
    (root / 'a' / 'coco_emae' / 'run.json').write_text('{"status": "do')
    (root / 'a' / 'chain.json').write_text('[')
    assert 'coco_emae.old-1' not in {i.run.name for i in candidates(find_chains(root)) if i.kept is None}


def test_the_tool_says_what_it_would_do_before_it_does(root):
    said = call(root, '--delete-superseded')
    assert said.returncode == 0 and '2 superseded runs, 5.0 MB: nothing was deleted; add --yes' in said.stdout
    assert (root / 'a' / 'coco_emae.old-1').is_dir()
    listed = call(root, '--filter', 'study')
    assert 'study/b' in listed.stdout and ' 86.0' not in listed.stdout and (root / 'index.html').is_file()
    wrong = f"error: 'nothing' is no chain of {root}; known are a, study/b\n"
    assert call(root, '--compare', 'a', 'nothing').stderr == wrong
    assert 'deleted 2 runs, 5.0 MB' in call(root, '--delete-superseded', '--yes').stdout
    assert not (root / 'a' / 'coco_emae.old-1').exists() and (root / 'a' / 'coco_emae').is_dir()
    assert call(root / 'plain').returncode == 2 and call(root, '--yes').returncode == 2


def test_the_index_filters_in_a_browser(root):
    manager, browser = launched()
    try:
        page, complaints = opened(browser, write_index(find_chains(root), root), 375)
        shown = lambda: [t for t in page.locator('.filtered tbody tr:visible td:nth-child(2)').all_inner_texts()]  # noqa: E731
        assert shown() == ['emae', 'scratch'] * 2
        page.select_option('select[data-column="1"]', 'emae')
        assert shown() == ['emae', 'emae']
        page.fill('input[type=search]', 'study | nothing')
        assert shown() == ['emae']
        page.fill('input[type=search]', '')
        page.locator('.filtered input[type=checkbox]').nth(2).check()
        page.check('#ticked')
        assert shown() == ['emae'] and page.locator('.filtered tbody tr:visible').inner_text().startswith('study/b')
        assert page.evaluate('document.documentElement.scrollWidth') <= 375 and complaints == []
    finally:
        browser.close()
        manager.stop()
