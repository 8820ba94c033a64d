"""What README.md and docs/ name exists: links and their headings, paths, modules, registered classes."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from mim_mm import registry
from mim_mm.algorithms.listing import listed
from mim_mm.utils import register_all_modules
from mim_mm.version import __version__

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob('*.md')), *sorted((ROOT / 'docs').rglob('*.md'))]
each_page = pytest.mark.parametrize('page', PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())

# A path of the repository: not the tail of another one, such as work_dirs/mine/configs/pretrain.py.
PATH = re.compile(r'(?<![\w/.>}-])(?:configs|tools|tests|docs|mim_mm)/[\w./{},*?-]*')
PLACEHOLDER = re.compile(r'\b[A-Z]{3,}\b|\.\.\.|^mim_mm/\.mim')  # configs/linear/RECIPE.py; inside a wheel
NAME = re.compile(r'(?<![\w/.-])mim_mm(?:\.\w+)+')


def anchors(page):
    """Headings as GitHub turns them into anchors: lower case, spaces to hyphens, punctuation dropped."""
    headings = re.findall(r'^#+ +(.*)$', page.read_text(), re.M)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


@each_page
def test_links_lead_somewhere(page):
    for target in re.findall(r'\]\(([^)\s]+)\)', page.read_text()):
        if target.startswith(('http://', 'https://')):
            continue
        path, _, anchor = target.partition('#')
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f'{page.name} links to {target}'
        assert not anchor or anchor in anchors(file), f'{page.name} links to {target}: no such heading'


def spelled_out(pattern):
    """``a{b,c}d`` as ``abd`` and ``acd``, as a shell does."""
    brace = re.search(r'\{([^{}]*)\}', pattern)
    if not brace:
        return [pattern]
    start, end = brace.span()
    return [path for word in brace.group(1).split(',') for path in spelled_out(pattern[:start] + word + pattern[end:])]


def missing_paths(text):
    for found in PATH.findall(text):
        pattern = found.rstrip('.,')
        if pattern.count('{') > pattern.count('}'):  # a command's {checkpoint}, cut off at a space
            pattern = pattern.rpartition('{')[0] + '*'
        if not PLACEHOLDER.search(pattern):
            yield from (path for path in spelled_out(pattern) if not list(ROOT.glob(path.rstrip('/'))))


@each_page
def test_paths_exist(page):
    assert not list(missing_paths(page.read_text()))


def test_pages_that_code_and_recipes_name_exist():
    files = [
        p for folder in ('mim_mm', 'configs', 'tools') for p in (ROOT / folder).rglob('*.py') if '.mim' not in p.parts
    ]
    named = {(path.name, page) for path in files for page in re.findall(r'docs/[\w/]+\.md', path.read_text())}
    assert named and not [pair for pair in named if not (ROOT / pair[1]).is_file()]


@pytest.fixture(scope='module')
def registered():
    register_all_modules(init_default_scope=False)
    registries = [value for value in vars(registry).values() if isinstance(value, registry.Registry)]
    return {name for value in registries for name in value.module_dict}


def resolves(name, registered):
    """Whether a dotted name is a module of ours or something in one, or a registered class below the scope."""
    scope, *inner = name.split('.')
    if len(inner) == 1 and inner[0] in registered:
        return True
    for count in range(len(inner), -1, -1):
        module = '.'.join([scope, *inner[:count]])
        try:
            value = importlib.import_module(module)
        except ModuleNotFoundError:
            continue
        for attribute in inner[count:]:
            value = getattr(value, attribute, None)
        return value is not None
    return False


@each_page
def test_modules_and_classes_exist(page, registered):
    text = page.read_text()
    names = set(NAME.findall(text))
    for module, imported in re.findall(r'from (mim_mm[.\w]*) import ([\w, ]+)', text):
        names |= {f'{module}.{name.split(" as ")[0].strip()}' for name in imported.split(',')}
    known = registered | set(re.findall(r'^class (\w+)', text, re.M))  # classes of the page's own examples
    # The room of an extra is in no registry until its recipes import it.
    known |= {name for path in (ROOT / 'mim_mm' / 'segmentation').glob('*.py') for name in defined(path)}
    assert not [name for name in sorted(names) if not name.endswith(('.py', '.md')) and not resolves(name, known)]


def defined(path):
    """Names of classes, of their methods as ``Class.method``, and of functions that a file defines."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            yield node.name
        if isinstance(node, ast.ClassDef):
            yield from (f'{node.name}.{inner.name}' for inner in node.body if isinstance(inner, ast.FunctionDef))


def test_the_readmes_way_of_an_image_is_that_of_the_code():
    rows = re.findall(r'^\|[^|]*\|[^|]*\| `(mim_mm/[^`]+)` \| (.*) \|$', (ROOT / 'README.md').read_text(), re.M)
    assert len(rows) >= 8
    wrong = [
        f'{file} has no {name}'
        for file, names in rows
        for name in re.findall('`([^`]+)`', names)
        if name not in defined(ROOT / file)
    ]
    assert not wrong


def test_the_map_has_every_document():
    text = (ROOT / 'docs' / 'README.md').read_text()
    pages = {path.relative_to(ROOT / 'docs').as_posix() for path in (ROOT / 'docs').rglob('*.md')} - {'README.md'}
    assert not [page for page in sorted(pages) if f']({page})' not in text]


def test_the_glossary_is_short_and_says_each_word_once():
    rows = re.findall(r'^\| ([^|]+) \| ', (ROOT / 'docs' / 'glossary.md').read_text(), re.M)
    words = [word for row in rows if row != 'word' for word in row.split(', ')]
    assert len(set(words)) == len(words) and len(rows) - 1 <= 25


def test_changelog_and_citation_have_this_version():
    assert f'\n## [{__version__}] - ' in (ROOT / 'CHANGELOG.md').read_text()
    assert f'\nversion: {__version__}\n' in (ROOT / 'CITATION.cff').read_text()


def test_the_readme_is_short_before_its_reference():
    text = (ROOT / 'README.md').read_text()
    assert len(text[: text.index('\n## Reference\n')].split()) < 900


def test_every_document_is_on_the_site():
    """mkdocs, told to be strict, looks at the links; this at the list, without it."""
    listed = set(re.findall(r'[\w/-]+\.md', (ROOT / 'mkdocs.yml').read_text().split('nav:\n', 2)[-1]))
    pages = {path.relative_to(ROOT / 'docs').as_posix() for path in (ROOT / 'docs').rglob('*.md')}
    root = {f'project/{name}.md' for name in ('README', 'CONTRIBUTING', 'CHANGELOG')}
    assert listed == pages | root


def test_the_readme_says_first_that_no_gpu_was_used():
    text = (ROOT / 'README.md').read_text()
    assert text.index('run on a GPU yet') < text.index('| EMAE-pretrained |')


def test_the_readme_lists_the_methods_of_the_registry():
    text = (ROOT / 'README.md').read_text()
    found = re.search(r'<!-- methods: [^>]* -->\n(.*?)<!-- end of methods -->', text, re.S)
    assert found and found[1] == listed(), 'run: python tools/list_methods.py'
    names = re.findall(r'^- \*\*([^*]+)\*\*', found[1], re.M)
    assert {'EMAE', 'MAE', 'DINO', 'iBOT'} <= set(names) <= set(registry.MODELS.module_dict)


@pytest.mark.parametrize(
    'text, line',
    [
        ('I-JEPA: Images (A et al., CVPR 2023, arXiv 2301.08243), more',
         '- **Mine** (I-JEPA): [Images](https://arxiv.org/abs/2301.08243), A et al., CVPR 2023'),
        ('Mine: Pixels (B et al., 2020)', '- **Mine**: Pixels, B et al., 2020'),
        ('Something about pixels.', '- **Mine**: Something about pixels.'),
    ],
)  # fmt: skip
def test_a_line_of_the_list_is_how_a_docstring_begins(monkeypatch, text, line):
    monkeypatch.setattr('mim_mm.algorithms.listing.methods', lambda: {'Mine': text})
    assert listed() == line + '\n'
    monkeypatch.setattr('mim_mm.algorithms.listing.methods', lambda: {'Mine': ''})
    with pytest.raises(ValueError, match='Mine: its module has no docstring'):
        listed()
