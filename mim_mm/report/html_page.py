"""Blocks as one HTML file that needs nothing else: style, script and pictures inside, and nothing from the outside.

Texts go through jinja2 with autoescape. The page's policy allows the one script that is written here, by its hash, so
that nothing in a run.json can become another.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from functools import cache
from importlib import resources
from urllib.parse import quote

from jinja2 import Environment, FunctionLoader
from markupsafe import Markup, escape

from mim_mm.report.document import Heading, Picture
from mim_mm.report.embedded import MOST, data_uris

__all__ = ['render', 'to_html']


@cache
def _source(name: str) -> str:
    return resources.files('mim_mm.report').joinpath('templates', name).read_text(encoding='utf-8')


def _inline(text) -> Markup:
    """Escaped, with `` `code` `` set as code."""
    return Markup(re.sub(r'`([^`]+)`', r'<code>\1</code>', str(escape(str(text)))))


def _href(path) -> str:
    return quote(os.fsencode(path))


@cache
def _environment() -> Environment:
    found = Environment(loader=FunctionLoader(_source), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    found.filters.update(inline=_inline, href=_href, kind=lambda block: type(block).__name__.lower())
    return found


def render(template: str, **values) -> str:
    """A template of ours with the style and the script that all pages share."""
    style, script = _source('page.css'), _source('page.js')
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    inside = dict(style=Markup(style), script=Markup(script), digest=digest)
    return _environment().get_template(template).render(**inside, **values)


def _slugs(blocks: list) -> dict[int, str]:
    """Anchors of the headings by their place in the page; the second of a name gets a number."""
    found: dict[int, str] = {}
    for place, block in enumerate(blocks):
        if isinstance(block, Heading):
            name = re.sub(r'[^a-z0-9]+', '-', block.text.lower()).strip('-') or 'part'
            count = sum(re.fullmatch(rf'{re.escape(name)}(-\d+)?', slug) is not None for slug in found.values())
            found[place] = f'{name}-{count + 1}' if count else name
    return found


def to_html(title: str, blocks: list, most: int = MOST) -> str:
    """The page, of at most about ``most`` bytes: where pictures would take more, they are made smaller."""
    pictures = [block.path for block in blocks if isinstance(block, Picture)]
    values = dict(title=title, blocks=blocks, slugs=_slugs(blocks))
    bare = len(render('page.html', pictures={}, **values).encode(errors='backslashreplace'))
    return render('page.html', pictures=data_uris(pictures, most - bare), **values)
