"""The page of small runs is made from its figures."""

import importlib.util

from tiny_run import ROOT

PAGE = ROOT / 'docs' / 'results' / 'learning.md'


def load():
    spec = importlib.util.spec_from_file_location('draw_learning', PAGE.with_name('draw_learning.py'))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_is_that_of_the_figures():
    learning, text = load(), PAGE.read_text()
    assert learning.filled(text, learning.read()) == text
    # A row by hand: MSN's random encoder and its third epoch.
    row = next(line for line in text.splitlines() if line.startswith('| MSN |'))
    assert '| 29.0 → 33.7 | 29.9 → 33.6 | 30.3 → 36.6 | +4.7, +3.7, +6.3 | 10,000 |' in row


def test_every_run_begins_with_its_random_encoder_and_has_a_recipe():
    for about, rows in load().read():
        images = [int(row['images']) for row in rows]
        assert images[0] == 0 and images == sorted(set(images)) and len(images) > 1, about
        assert (ROOT / 'configs' / 'evidence' / f'{about["recipe"]}.py').is_file(), about


def test_a_picture_of_every_method(tmp_path):
    learning = load()
    path = learning.draw(learning.read(), tmp_path / 'learning.png')
    assert path.read_bytes()[:4] == b'\x89PNG'
