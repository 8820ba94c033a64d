"""JSON as a broken disk, an editor or a careless script leaves it: seeded mutations for tests that feed them."""

import copy
import json
import math

STRANGE = (
    None, True, False, 0, -1, 1, 3, -0.5, 1e308, -1e308, 10**30, -(10**30), 2**31, 2**53, math.nan, math.inf, -math.inf,
    '', 'x', 'NaN', '1e999', '12', '7.5', '\0', '\ud800', '../../x', '<b>', [], {}, [None], [[]], {'a': 1}, [1, 2],
    [math.nan] * 4, [1e308] * 4, [-5, -5, 10**9, 10**9], [[1, 2, 3]], [[0, 0, 10**9, 0, 10**9, 10**9]],
)  # fmt: skip


def nodes(value, path=()):
    """Every place of a JSON value as ``(path, value)``, the root first."""
    yield path, value
    if isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from nodes(inner, (*path, key))


def mutate(content, rng):
    """A copy with one to three places changed: replaced, removed, doubled, renamed or exchanged.

    Args:
        content: what JSON can hold; it stays.
        rng: ``random.Random``.
    """
    content = json.loads(json.dumps(content))  # no part of it twice
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = [path for path, _ in nodes(content) if path]
        if not places:
            break
        # Deep lists of numbers would otherwise take nearly all of the mutations.
        depth = rng.choice(sorted({len(path) for path in places}))
        path = rng.choice([path for path in places if len(path) == depth])
        parent = content
        for key in path[:-1]:
            parent = parent[key]
        _change(parent, path[-1], content, rng)
    return content


def _change(parent, key, content, rng):
    kind = rng.choice(('replace', 'replace', 'replace', 'remove', 'double', 'rename', 'exchange', 'nest', 'negate'))
    value = parent[key]
    if kind == 'remove':
        del parent[key]
    elif kind == 'double' and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(value))
    elif kind == 'rename' and isinstance(parent, dict):
        parent[f'{key}x'] = parent.pop(key)
    elif kind == 'exchange':
        parent[key] = copy.deepcopy(rng.choice([inner for _, inner in nodes(content)]))
    elif kind == 'nest':
        parent[key] = rng.choice(([value], {'a': value}, str(value)))
    elif kind == 'negate' and isinstance(value, (int, float)):
        parent[key] = rng.choice((-value, value * 1000, value + 0.5, str(value)))
    else:
        parent[key] = copy.deepcopy(rng.choice(STRANGE))


def damage(data, rng):
    """Bytes of a file with a few flipped, cut out, doubled, or the end missing."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(data)) if data else 0
        kind = rng.choice(('flip', 'flip', 'cut', 'end', 'repeat'))
        if kind == 'flip' and data:
            data[at] = rng.randrange(256)
        elif kind == 'cut':
            del data[at : at + rng.randrange(1, 40)]
        elif kind == 'end':
            del data[at:]
        else:
            data[at:at] = data[at : at + rng.randrange(1, 40)]
    return bytes(data)


def mutated_bytes(content, rng, share=0.2):
    """The bytes of a mutated JSON file; a ``share`` of them is damaged as bytes instead."""
    if rng.random() < share:
        return damage(json.dumps(content).encode(), rng)
    return json.dumps(mutate(content, rng)).encode()
