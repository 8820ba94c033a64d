"""A page as a list of blocks, from which one HTML file (``html_page``) and one Markdown file are written."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

__all__ = ['Cell', 'Fold', 'Heading', 'Picture', 'Pre', 'Table', 'Text', 'full_text', 'markdown_of', 'to_markdown']


@dataclass(frozen=True)
class Cell:
    """Text of a table cell; ``state`` is one of '', strong, quiet, good, bad.

    Args:
        note: a second, quiet line: the interval of a figure, how many runs.
        folded: what is shown when it is asked for.
        key: sorts the column in place of the text's first number.
        files: ``(name, path relative to the page)`` of files to open.
    """

    text: str
    state: str = ''
    note: str = ''
    folded: tuple = ()
    key: float | None = None
    files: tuple = ()


@dataclass(frozen=True)
class Heading:
    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph; `` `code` `` is set as code. ``state`` as in :class:`Cell`."""

    text: str
    state: str = ''


@dataclass(frozen=True)
class Pre:
    text: str


@dataclass(frozen=True)
class Table:
    header: list
    rows: list
    caption: str = ''
    numeric: bool = True
    small: bool = False


@dataclass(frozen=True)
class Picture:
    """``alt`` says what is to be seen, for a reader who does not see it; the caption where it is not given."""

    path: Path
    caption: str = ''
    alt: str = ''


@dataclass(frozen=True)
class Fold:
    """Paragraphs that the HTML page shows when their summary is asked for."""

    summary: str
    blocks: tuple


def full_text(cell: Cell) -> str:
    """Everything a cell says, in one line."""
    folded = '; '.join(cell.folded)
    text = '; '.join(filter(None, [cell.text, folded]))
    return f'{text} ({cell.note})'.strip() if cell.note else text


def _md(text: str) -> str:
    """A line of Markdown in which names are names: no HTML and no link comes out of a text; `` `code` `` stays."""
    text = ' '.join(str(text).splitlines())
    pieces = re.split(r'(`[^`]+`)', text)
    if '``' in text or '\\`' in text or text.count('`') % 2:  # readers would pair these marks in another way
        pieces = [text.replace('`', '&#96;')]
    return ''.join(p if p[:1] == '`' else _plain(p) for p in pieces)


def _plain(text: str) -> str:
    text = re.sub(r'&(?=#?\w+;)(?!#96;)', '&amp;', text).replace('<', '&lt;')
    return re.sub(r'\](?=[\[(:])', '&#93;', text)  # a backslash could itself be made plain by one before it


def _md_cell(cell: Cell) -> str:
    text = _md(cell.text)
    text = f'**{text}**' if text and cell.state in ('strong', 'good', 'bad') else text
    rest = _md(full_text(Cell('', note=cell.note, folded=cell.folded)))
    links = ', '.join(f'[{_md(name)}](<{quote(os.fsencode(path))}>)' for name, path in cell.files)
    text = ' '.join(filter(None, [text, rest, links]))
    return text.replace('\\|', '|').replace('|', '\\|')


def markdown_of(block, folder: Path) -> str:
    if isinstance(block, Heading):
        return f'## {_md(block.text)}'
    if isinstance(block, Text):
        return f'**{_md(block.text)}**' if block.state in ('good', 'bad') else _md(block.text)
    if isinstance(block, Pre):
        return '\n'.join('    ' + line for line in block.text.splitlines())
    if isinstance(block, Table):
        rule = ['---', *(['---:' if block.numeric else '---'] * (len(block.header) - 1))]
        header = [_md_cell(Cell(title)) for title in block.header]
        rows = [header, rule, *([_md_cell(cell) for cell in row] for row in block.rows)]
        lines = '\n'.join('| ' + ' | '.join(map(str, row)) + ' |' for row in rows)
        return lines + (f'\n\n{_md(block.caption)}' if block.caption else '')
    if isinstance(block, Fold):
        return '\n\n'.join([f'*{_md(block.summary)}*', *(markdown_of(inner, folder) for inner in block.blocks)])
    where = Path(os.path.relpath(block.path, folder)).as_posix()
    for letter in '<>\n\r\\':
        where = where.replace(letter, f'%{ord(letter):02X}')
    caption = _md(block.caption.replace('[', '(').replace(']', ')'))
    return f'![{caption}](<{where}>)' + (f'\n\n*{caption}*' if block.caption else '')


def to_markdown(title: str, blocks: list, folder: str | Path) -> str:
    """The same page as Markdown; pictures are linked relative to ``folder``, where the file will lie."""
    return f'# {_md(title)}\n\n' + '\n\n'.join(markdown_of(block, Path(folder)) for block in blocks) + '\n'
