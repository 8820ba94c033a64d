"""The figures of the published study are those of its packed results."""

import re
from statistics import mean

from tiny_run import ROOT

from mim_mm.report.collect import collect
from mim_mm.report.filled import fill
from mim_mm.report.orderings import figures_of
from mim_mm.report.packed import unpack

RESULTS = ROOT / 'docs' / 'results'


def test_the_tables_of_the_evidence_page_follow_from_its_results(tmp_path):
    unpack(RESULTS / 'evidence_cifar10.json.xz', tmp_path)
    text = (RESULTS / 'evidence_cifar10.md').read_text()
    assert fill(text, tmp_path) == text
    # One row by hand, from the files themselves.
    runs = [read for read in tmp_path.glob('probe_mae-s*/knn.json')]
    found = [float(re.search(r'"mean": \{.*?"20": \{\s*"top1": ([\d.]+)', path.read_text(), re.S)[1]) for path in runs]
    row = next(line for line in text.splitlines() if line.startswith('| **mae** |'))
    assert len(found) >= 3 and f'| {mean(found):.1f} ±' in row
    values = figures_of(collect(tmp_path))
    assert set(values['knn']['mae']) == set(values['probe']['mae']) == {int(path.parent.name[-1]) for path in runs}
