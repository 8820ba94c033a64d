"""docs/results/recipes.md says of every recipe, once, what has been run of it."""

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / 'docs/results/recipes.md'


def named(place: str) -> list[str]:
    """Paths in backticks in one column of the tables; ``a/{b,c}.py`` names two."""
    columns = [line.split(' | ') for line in PAGE.read_text().splitlines() if line.startswith('| `')]
    cells = [row[0] if place == 'recipes' else ' '.join(row[1:]) for row in columns]
    found = []
    for pattern in re.findall(r'`([^`]+\.py)`', ' '.join(cells)):
        head, braces, tail = re.fullmatch(r'([^{]*)(?:\{(.*)\})?(.*)', pattern).groups()
        found += [f'{head}{name}{tail}' for name in braces.split(',')] if braces else [pattern]
    return found


def test_each_recipe_has_one_line():
    recipes = {p.relative_to(ROOT / 'configs').as_posix() for p in (ROOT / 'configs').glob('*/*.py')}
    recipes = {name for name in recipes if not name.startswith('_base_/')}
    listed = Counter(named('recipes'))
    assert not recipes - set(listed), 'these recipes have no line: say there what has been run of them'
    assert not set(listed) - recipes, 'there are no such recipes'
    assert set(listed.values()) == {1}, [name for name, count in listed.items() if count > 1]


def test_the_tests_that_it_names_are_there():
    tests = [name for name in named('rest') if name.startswith('tests/')]
    assert tests and not [name for name in tests if not (ROOT / name).is_file()]


def test_no_recipe_says_it_again():
    assert not [str(p) for p in (ROOT / 'configs').rglob('*.py') if 'Last run' in p.read_text()]
