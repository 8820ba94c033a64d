"""The facts of a run's recipe, from the resolved config that it left: never from the name of a file."""

from __future__ import annotations

import ast
from pathlib import Path

from mim_mm import files
from mim_mm.compat.paths import configs_root
from mim_mm.recipe_facts import pretraining, stated_backbone, totals, until
from mim_mm.report.collect import Chain, Run
from mim_mm.report.damage import inside
from mim_mm.report.published import known_data

__all__ = ['pretraining_of', 'pretrainings', 'resolved']


def resolved(run: Run) -> dict | None:
    """The resolved config of a run, or None: the chain's ``identity.json``, else mmengine's dump beside it, else the
    recipe of ours that run.json names, as that file is now and with the options of the run."""
    return _left_in(run.folder) or _named(run.raw.get('config') or {})


def _left_in(folder: Path) -> dict | None:
    config = files.known_object(folder / 'identity.json').get('config')
    if isinstance(config, dict) and config.get('model'):
        return config
    dumps = [config for config in map(_dump, sorted(folder.glob('*.py'))) if config.get('model')]
    return dumps[0] if len(dumps) == 1 else None


def _dump(path: Path) -> dict:
    """The variables of a file of plain values, as mmengine dumps a resolved config; nothing is run."""
    values = {}
    try:
        for node in ast.parse(path.read_bytes()).body:
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                values[node.targets[0].id] = _value(node.value)
    except (OSError, SyntaxError, ValueError, TypeError):
        return {}
    return values


def _value(node: ast.AST):
    """A literal, in which dicts may be written ``dict(a=1)``."""
    if isinstance(node, ast.Call) and getattr(node.func, 'id', None) == 'dict' and not node.args:
        return {keyword.arg: _value(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.Dict):
        return {ast.literal_eval(key): _value(value) for key, value in zip(node.keys, node.values)}
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(item) for item in node.elts]
    return ast.literal_eval(node)


def _named(config: dict) -> dict | None:
    path = config.get('path')
    try:
        # A config is a program, and run.json may come from anywhere: none but our own recipes is run.
        if not path or not Path(path).is_file() or not inside(Path(path), configs_root()):
            return None
        from mmengine.config import Config

        found = Config.fromfile(str(path), import_custom_modules=False)
        found.merge_from_dict(dict(config.get('options') or {}))
        return found.to_dict() if found.get('model') else None
    except Exception:  # a config is a program: anything can come out of it
        return None


def pretraining_of(run: Run) -> dict | None:
    """What :func:`mim_mm.report.published.matching_rows` wants to know of a pretraining; None where nothing tells.

    A stage whose place a checkpoint takes is what lies beside that checkpoint, as old as its name says.
    """
    given = run.raw.get('checkpoint') if run.status == 'skipped' else None
    config = _left_in(Path(given).parent) if given else resolved(run)
    if not config:
        return None
    facts = pretraining(config)
    facts = until(facts, Path(given).name) if given else facts
    data = known_data(run.raw.get('data'))
    _, facts['epochs'] = totals(facts, run.raw.get('gpus'), data['images'])
    backbone = stated_backbone((config.get('model') or {}).get('backbone'))
    return dict(facts, backbone=backbone, pretrain_data=data['train'])


def pretrainings(chain: Chain) -> list[tuple[str | None, dict]]:
    """``(arm, facts)`` of every different pretraining of the chain, in its order; seeds of one are one."""
    found: list[tuple[str | None, dict]] = []
    for run in chain.of('pretrain'):
        facts = pretraining_of(run)
        if facts and facts not in [other for _, other in found]:
            found.append((run.arm, facts))
    return found
