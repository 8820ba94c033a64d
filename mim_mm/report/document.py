"""A page as a list of blocks, written twice from the same blocks: one HTML file with its pictures inside, one Markdown
file with pictures beside it."""

from __future__ import annotations

import base64
import html
import os
import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ['Cell', 'Heading', 'Picture', 'Pre', 'Table', 'Text', 'markdown_of', 'to_html', 'to_markdown']


@dataclass(frozen=True)
class Cell:
    """Text of a table cell; ``state`` is one of '', strong, quiet, good, bad."""

    text: str
    state: str = ''


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
    path: Path
    caption: str = ''


STYLE = """
:root { --ink: #1c2330; --quiet: #667085; --line: #e2e6ee; --wash: #f6f8fb; --good: #12743b; --bad: #b42318; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 40px 28px 72px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -.01em; }
h2 { font-size: 18px; margin: 40px 0 10px; padding-top: 14px; border-top: 1px solid var(--line); }
p { margin: 8px 0; max-width: 82ch; }
code { font: .9em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; background: var(--wash); padding: 1px 4px;
  border-radius: 4px; overflow-wrap: anywhere; }
pre { font: 12px/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; background: var(--wash);
  padding: 12px 14px; border-radius: 8px; border: 1px solid var(--line);
  white-space: pre-wrap; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: 14px 0 4px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; font-size: 12px; font-weight: 600; color: var(--quiet); border-bottom: 2px solid var(--line); }
th, td { padding: 7px 12px 7px 0; vertical-align: top; }
td { border-bottom: 1px solid var(--line); }
table.numeric td:not(:first-child), table.numeric th:not(:first-child) { text-align: right; white-space: nowrap; }
table.small { font-size: 12px; line-height: 1.4; }
table.small td { overflow-wrap: break-word; }
.caption, .quiet { color: var(--quiet); }
.caption { font-size: 13px; margin: 4px 0 18px; }
.strong { font-weight: 600; }
.good { color: var(--good); font-weight: 600; }
.bad { color: var(--bad); font-weight: 600; }
figure { margin: 18px 0 26px; break-inside: avoid; }
figure img { display: block; max-width: 100%; height: auto; }
@media print { body { font-size: 11px; } main { max-width: none; padding: 0; } .scroll { overflow: visible; }
  table.small { font-size: 8px; } h2 { break-after: avoid; } tr { break-inside: avoid; } a { color: inherit; } }
"""


def _inline(text: str) -> str:
    return re.sub(r'`([^`]+)`', r'<code>\1</code>', html.escape(str(text), quote=False))


def _class(*names: str) -> str:
    used = ' '.join(name for name in names if name)
    return f' class="{used}"' if used else ''


def _html_table(table: Table) -> str:
    head = ''.join(f'<th scope="col">{html.escape(str(title))}</th>' for title in table.header)
    lines = []
    for row in table.rows:
        lines.append('<tr>' + ''.join(f'<td{_class(cell.state)}>{_inline(cell.text)}</td>' for cell in row) + '</tr>')
    caption = f'<p class="caption">{_inline(table.caption)}</p>' if table.caption else ''
    classes = _class('numeric' if table.numeric else '', 'small' if table.small else '')
    body = f'<table{classes}><thead><tr>{head}</tr></thead><tbody>' + '\n'.join(lines) + '</tbody></table>'
    return f'<div class="scroll">{body}</div>{caption}'


def _html_block(block) -> str:
    if isinstance(block, Heading):
        return f'<h2>{html.escape(block.text)}</h2>'
    if isinstance(block, Text):
        return f'<p{_class(block.state)}>{_inline(block.text)}</p>'
    if isinstance(block, Pre):
        return f'<pre>{html.escape(block.text)}</pre>'
    if isinstance(block, Table):
        return _html_table(block)
    data = base64.b64encode(block.path.read_bytes()).decode('ascii')
    kind = 'jpeg' if block.path.suffix.lower() in ('.jpg', '.jpeg') else 'png'
    alt = html.escape(block.caption or block.path.stem, quote=True)
    caption = f'<figcaption class="caption">{_inline(block.caption)}</figcaption>' if block.caption else ''
    return f'<figure><img alt="{alt}" src="data:image/{kind};base64,{data}">{caption}</figure>'


def to_html(title: str, blocks: list) -> str:
    """One self-contained HTML page (pictures as data URIs, no script, no link to the outside)."""
    body = '\n'.join(_html_block(block) for block in blocks)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n'
        f'<h1>{html.escape(title)}</h1>\n{body}\n</main>\n</body>\n</html>\n'
    )


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
    text = _md(cell.text).replace('\\|', '|').replace('|', '\\|')
    return f'**{text}**' if cell.state in ('strong', 'good', 'bad') else text


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
    where = Path(os.path.relpath(block.path, folder)).as_posix()
    for letter in '<>\n\r\\':
        where = where.replace(letter, f'%{ord(letter):02X}')
    caption = _md(block.caption.replace('[', '(').replace(']', ')'))
    return f'![{caption}](<{where}>)' + (f'\n\n*{caption}*' if block.caption else '')


def to_markdown(title: str, blocks: list, folder: str | Path) -> str:
    """The same page as Markdown; pictures are linked relative to ``folder``, where the file will lie."""
    return f'# {_md(title)}\n\n' + '\n\n'.join(markdown_of(block, Path(folder)) for block in blocks) + '\n'
