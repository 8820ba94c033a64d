"""``tools/transfer.py --compare A B C``: the same downstream recipes and seeds for several encoders, and for none.

What runs is an ordinary chain. Its config is written into the work dir, where it can be read, edited and called again;
``compare_check.py`` looks at it at every call, ``mim_mm/report/comparison.py`` makes the page.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mim_mm.checkpoint.read import LoadError, resolve_checkpoint
from mim_mm.files import write_text
from mim_mm.transfer.call import Call
from mim_mm.transfer.chain import ChainError, find_file, flatten
from mim_mm.transfer.compare import compare_facts
from mim_mm.transfer.compare.compare_check import CONTROL
from mim_mm.transfer.words import Kind

CHAIN_FILE = 'compare_chain.py'
SEEDS = 3  # of a kind that says nothing else
FEW_SEEDS = (Kind.COCO, Kind.SEG)  # a run costs so much that the chain's own seeds stand unless KIND=N asks for more
MARK = '# written by tools/transfer.py --compare; sha256 of what follows: '
RECIPES = {  # without --with: the published protocols for the encoders that have them
    'ViT-S/16': ('linear/vits_linear_90e', 'finetune/vits_finetune_200e', 'coco/mask_rcnn_vits_fpn_lsj_100e'),
    'ViT-B/16': ('linear/vitb_linear_90e', 'finetune/vitb_finetune_100e', 'coco/mask_rcnn_vitb_fpn_lsj_100e'),
    'ViT-L/16': ('linear/vitl_linear_50e', 'finetune/vitl_finetune_50e', 'coco/mask_rcnn_vitl_fpn_lsj_100e'),
    'ViT-H/14': ('linear/vith_linear_50e', 'finetune/vith_finetune_50e'),
}


@dataclasses.dataclass(frozen=True)
class Arm:
    """An encoder to compare: a config to pretrain with, or a checkpoint."""

    name: str
    config: Path | None = None
    checkpoint: Path | None = None


def write_comparison(call: Call, say: Callable[[str], None], folder: Path | None) -> Call:
    """Write the chain of a comparison.

    Args:
        call: ``compare``, ``recipes`` and ``seeds`` describe it; ``chain`` must be empty.
        folder: the chain is written here instead of into the work dir, which is left alone.

    Returns:
        The call of that chain.

    Raises:
        ChainError: the comparison cannot work; nothing was written.
    """
    if call.chain:
        raise ChainError(f'{call.chain}: a comparison makes its own chain; give recipes with --with {call.chain}')
    arms = [parse_arm(text) for text in call.compare]
    names = [arm.name for arm in arms]
    for name in names:
        if names.count(name) > 1:
            raise ChainError(f'--compare: two arms are called {name!r}; name them, NAME=CONFIG or NAME=CHECKPOINT')
    stages = read_recipes(call.recipes) if call.recipes else default_recipes(arms)
    name = f'compare_{"_vs_".join(names)}'[:100]
    work_dir = Path(call.work_dir or f'work_dirs/{name}')
    text = chain_text(name, arms, stages, parse_seeds(call.seeds, {s['kind'] for s in stages.values()}))
    refuse_edited(work_dir / CHAIN_FILE, text)
    path = (folder or work_dir) / CHAIN_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return dataclasses.replace(call, chain=str(path), work_dir=str(work_dir), compare=(), recipes=None, seeds=())


# ---- reading the call


def parse_arm(text: str) -> Arm:
    """``CONFIG.py`` (named after its file), ``NAME=CONFIG.py``, ``NAME=CHECKPOINT`` (a file or a work dir).

    Raises:
        ChainError: there is no such file, a checkpoint without a name, or a name that cannot be used.
    """
    name, equals, path = text.partition('=')
    if not equals:
        name, path = Path(text).stem, text
    where = f'--compare {text}'
    if not equals and not path.endswith('.py'):
        raise ChainError(
            f'{where}: an arm is a pretraining config CONFIG.py, NAME=CONFIG.py or NAME=CHECKPOINT; the arm '
            f'{CONTROL!r} is always there'
        )
    if name == CONTROL:
        raise ChainError(f'{where}: {CONTROL!r} is the arm without pretraining and always there; take another name')
    if not re.fullmatch(r'[A-Za-z0-9][A-Za-z0-9_-]*', name):
        raise ChainError(f'{where}: the name {name!r} becomes a folder; use letters, digits, "-" and "_" only')
    if path.endswith('.py'):
        return Arm(name, config=find_file(path, where))
    try:
        return Arm(name, checkpoint=resolve_checkpoint(path).resolve())
    except LoadError as error:
        raise ChainError(f'{where}: {error}') from error


def parse_seeds(items: Sequence[str], kinds: set) -> dict[str, int]:
    """``['5', 'coco=3']`` -> kind -> how many seeds at least; 0 leaves a kind to its chain."""
    wanted = {kind: 0 if kind in FEW_SEEDS else SEEDS for kind in kinds}
    for item in map(str, items):
        kind, equals, number = item.partition('=') if '=' in item else ('', '', item)
        if not number.isdigit() or int(number) < 1 or (equals and kind not in kinds):
            raise ChainError(f'--seeds {item}: give N or KIND=N, N at least 1, KIND one of {", ".join(sorted(kinds))}')
        wanted.update({kind: int(number)} if equals else {k: int(number) for k in kinds if k not in FEW_SEEDS})
    return wanted


def read_recipes(chain: str) -> dict[str, dict[str, Any]]:
    """The downstream stages of a chain config, without arm and parent; equal ones (of two arms) count once.

    Raises:
        ChainError: there is none, two of a name differ, or one starts from another downstream stage.
    """
    path = Path(chain).resolve() if Path(chain).is_file() else find_file(chain, '--with')
    stages = Config.fromfile(str(path)).to_dict().get('stages') or {}
    found: dict[str, dict[str, Any]] = {}
    for base, stage in stages.items():
        if stage.get('kind') in (Kind.PRETRAIN, Kind.REPORT):
            continue
        parent = stages.get(stage.get('init') or '', {})
        if parent and parent.get('kind') != Kind.PRETRAIN:
            raise ChainError(f'--with {chain}: {base!r} starts from {stage["init"]!r}, which is no pretraining stage')
        arm = stage.get('arm') or parent.get('arm') or CONTROL
        recipe = {key: value for key, value in stage.items() if key not in ('init', 'arm')}
        if recipe in found.values():
            continue
        name = base.removesuffix(f'_{arm}')
        if name in found:
            raise ChainError(
                f'--with {chain}: {base!r} is not the recipe that another arm has as {name!r}; the arms of a '
                'comparison share their recipes: rename it, or make them equal'
            )
        found[name] = recipe
    if not found:
        raise ChainError(f'--with {chain}: it has no downstream stage to run for each arm')
    return found


def default_recipes(arms: Sequence[Arm]) -> dict[str, dict[str, Any]]:
    """The published protocols for the first arm's encoder (that the others fit is checked later)."""
    first = arms[0]
    encoder = (
        compare_facts.encoder(Config.fromfile(str(first.config)))
        if first.config
        else compare_facts.encoder_of_file(first.checkpoint)
    )
    name = encoder.get('name')
    if name not in RECIPES:
        raise ChainError(
            f'--compare: there are no default recipes for the encoder of {first.name!r} ({name or "unknown"}), only '
            f'for {", ".join(RECIPES)}; name a chain whose downstream stages shall be run: --with CHAIN'
        )
    return {path.split('/')[0]: dict(kind=path.split('/')[0], config=f'configs/{path}.py') for path in RECIPES[name]}


# ---- writing the chain


def chain_text(name: str, arms: Sequence[Arm], recipes: dict[str, dict[str, Any]], seeds: dict[str, int]) -> str:
    """The chain config: pretraining, then each recipe for each arm, the control last."""
    stages: dict[str, dict[str, Any]] = {}
    for arm in arms:
        weights = dict(config=str(arm.config)) if arm.config else dict(checkpoint=str(arm.checkpoint))
        stages[f'pretrain_{arm.name}'] = dict(kind='pretrain', **weights, arm=arm.name)
    names = [arm.name for arm in arms] + [CONTROL]
    for recipe, settings in recipes.items():
        own = list(settings.get('seeds') or [0])
        count = seeds[settings['kind']]
        settings = dict(
            settings,
            config=str(find_file(settings['config'], f'recipe {recipe}')),
            seeds=own + [s for s in range(max(own) + 1 + count) if s not in own][: max(0, count - len(own))],
        )
        if settings.get('options'):
            settings['options'] = flatten(settings['options'], f'recipe {recipe}')
        for arm in names:
            init = None if arm == CONTROL else f'pretrain_{arm}'
            stages[f'{recipe}_{arm}'] = dict(settings, init=init, arm=arm)
    stages['report'] = dict(kind='report')
    lines = [
        f'"""Comparison of {", ".join(names)}; docs/compare.md says how to read, edit and run this file."""',
        '',
        f'name = {name!r}',
        "work_dir = r'''{{ fileDirname }}'''",
        '# recipe R of arm A is stage R_A; these differ in nothing but their encoder, or in keys that allow lists',
        f'compare = dict(arms={names!r}, recipes={list(recipes)!r}, allow=[])',
        'stages = {',
        *(f'    {stage!r}: {_literal(keys)},' for stage, keys in stages.items()),
        '}',
        '',
    ]
    body = '\n'.join(lines)
    return f'{MARK}{hashlib.sha256(body.encode()).hexdigest()}\n{body}'


def _literal(keys: dict[str, Any]) -> str:
    return f'dict({", ".join(f"{key}={value!r}" for key, value in keys.items())})'


def refuse_edited(path: Path, text: str) -> None:
    """Never overwrite a chain that somebody edited; one of our own, of fewer arms say, is replaced.

    Raises:
        ChainError: the file is there, is not what would be written, and does not carry the hash of its own content.
    """
    if not path.exists():
        return
    before = path.read_text(encoding='utf-8')
    head, body = _split(before)
    if before != text and head != f'{MARK}{hashlib.sha256(body.encode()).hexdigest()}':
        raise ChainError(
            f'{path} was edited: run it as it is with tools/transfer.py {path}, delete it, or give another --work-dir'
        )


def _split(text: str) -> tuple[str, str]:
    head, _, body = text.partition('\n')
    return head, body
