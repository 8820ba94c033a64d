"""mkdocs hook: README.md, CONTRIBUTING.md and CHANGELOG.md of the root are pages of the site, under ``project/``.

Links between them and docs/ are those of the repository, so they are turned here, and nowhere else.
"""

import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
PAGES = ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md')
FOLDER = 'project'
_NOT_ON_THE_SITE = re.compile(r'\[([^\]]+)\]\((?:LICENSE|CITATION\.cff)\)')


def on_files(files, config):
    for name in PAGES:
        text = (ROOT / name).read_text(encoding='utf-8')
        text = text.replace('](docs/README.md', '](../README.md').replace('](docs/', '](../')
        text = _NOT_ON_THE_SITE.sub(r'\1', text)
        files.append(File.generated(config, f'{FOLDER}/{name}', content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    if page.file.src_uri.startswith(f'{FOLDER}/'):
        return markdown
    up = '../' * page.file.src_uri.count('/')
    for name in PAGES:
        markdown = markdown.replace(f']({up}../{name}', f']({up}{FOLDER}/{name}')
    return markdown
