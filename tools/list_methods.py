#!/usr/bin/env python
"""Write the list of methods into README.md from the registry: ``python tools/list_methods.py``.

The line of a method is how the docstring of its module begins, "NAME: Title (Authors, Venue, arXiv 0000.00000)".
"""

import re
from pathlib import Path

import mim_mm.interrupts  # noqa: F401  (Ctrl-C ends in one line)
from mim_mm import files
from mim_mm.algorithms.listing import listed

README = Path(__file__).resolve().parents[1] / 'README.md'
PLACE = re.compile(r'(<!-- methods: .*? -->\n).*?(?=<!-- end of methods -->)', re.S)

if __name__ == '__main__':
    text = README.read_text()
    if not PLACE.search(text):
        raise SystemExit(f'error: {README} has no "<!-- methods: ... -->" with an end: put them around the list again')
    files.write_text(README, PLACE.sub(lambda found: found[1] + listed(), text))
