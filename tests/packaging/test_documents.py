"""Links inside README.md and docs/ lead somewhere, to a heading where they name one."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md'))]


def anchors(page):
    """Headings as GitHub turns them into anchors: lower case, spaces to hyphens, punctuation dropped."""
    headings = re.findall(r'^#+ +(.*)$', page.read_text(), re.M)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for target in re.findall(r'\]\(([^)\s]+)\)', page.read_text()):
        if target.startswith(('http://', 'https://')):
            continue
        path, _, anchor = target.partition('#')
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f'{page.name} links to {target}'
        assert not anchor or anchor in anchors(file), f'{page.name} links to {target}: no such heading'


def test_the_readme_says_first_that_no_gpu_was_used():
    text = (ROOT / 'README.md').read_text()
    assert text.index('run on a GPU yet') < text.index('| EMAE-pretrained |')
