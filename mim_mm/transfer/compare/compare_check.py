"""What makes a comparison honest, checked before anything runs, and written down for the page.

A chain config that holds ``compare = dict(arms=[...], recipes=[...], allow=[...])`` is a comparison: for each recipe
``R`` and each arm ``A`` there is a stage ``R_A``, and these stages may differ in nothing but the encoder they start
from. The check is made at every call, so that it also holds for a config that was edited by hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.config import Config

from mim_mm.transfer import identity
from mim_mm.transfer.chain import ChainError, Stage, unknown
from mim_mm.transfer.compare import compare_facts
from mim_mm.transfer.manifest import write_json
from mim_mm.transfer.standing import Standing

SUMMARY = 'compare.json'
CONTROL = 'scratch'  # the arm that starts from random weights
KEYS = ('arms', 'recipes', 'allow')


def read_settings(path: Path) -> dict[str, Any] | None:
    """The ``compare`` variable of a chain config; None in an ordinary chain."""
    settings = Config.fromfile(str(path)).to_dict().get('compare')
    if settings is None:
        return None
    where = f'{path.name}, compare'
    if not isinstance(settings, dict):
        raise ChainError(f'{where}={settings!r} must be a dict(arms=[...], recipes=[...])')
    for key in settings:
        if key not in KEYS:
            raise unknown('key', key, KEYS, where)
    for key in KEYS[:2]:
        if not settings.get(key) or not isinstance(settings[key], list):
            raise ChainError(f'{where}: {key}={settings.get(key)!r} must be a list of names')
    if CONTROL not in settings['arms']:
        raise ChainError(f'{where}: arms={settings["arms"]} lacks {CONTROL!r}, the control without pretraining; add it')
    return settings


def check(standing: Standing) -> dict[str, Any] | None:
    """The content of compare.json but for the data, or None for a chain that is no comparison. Nothing is written.

    Raises:
        ChainError: an arm lacks a recipe; arms differ in seeds, devices or in what their downstream configs teach
            (beyond ``allow``); a stage gets weights from elsewhere; an encoder does not fit the recipe's.
    """
    settings = read_settings(standing.chain.path)
    if settings is None:
        return None
    arms, recipes = settings['arms'], settings['recipes']
    content = dict(
        schema=1, name=standing.chain.name, arms={}, recipes={}, allowed=[], allow=settings.get('allow') or []
    )
    encoders = {}
    for recipe in recipes:
        groups = {arm: _runs(standing, recipe, arm) for arm in arms}
        content['allowed'] += _same_recipe(standing, recipe, groups, content['allow'])
        first = groups[arms[0]][0]
        config = standing.config(first)
        encoders[recipe] = compare_facts.encoder(config)
        content['recipes'][recipe] = dict(
            kind=first.kind,
            config=str(first.config),
            options={key: str(value) for key, value in first.options.items()},
            seeds=[stage.seed for stage in groups[arms[0]]],
            stages={arm: runs[0].base for arm, runs in groups.items()},
            facts=dict(compare_facts.downstream(config), encoder=encoders[recipe].get('name')),
        )
    for arm in arms:
        content['arms'][arm] = _arm(standing, arm, [s for r in recipes for s in _runs(standing, r, arm)])
        for recipe, backbone in encoders.items():
            _fits(arm, content['arms'][arm].get('encoder') or {}, recipe, backbone)
    return content


def write(standing: Standing, content: dict[str, Any] | None) -> None:
    """``compare.json`` in the chain's work dir, with the identity of the data each arm was pretrained on."""
    if content is None:
        return
    for facts in content['arms'].values():
        stage = facts.get('stage')
        if stage and facts.get('source') == 'config':
            facts['data'] = standing.data(standing.chain[stage])
    standing.chain.work_dir.mkdir(parents=True, exist_ok=True)
    write_json(standing.chain.work_dir / SUMMARY, content)


# ---- the downstream side


def _runs(standing: Standing, recipe: str, arm: str) -> list[Stage]:
    base = f'{recipe}_{arm}'
    runs = [stage for stage in standing.chain.stages if stage.base == base]
    if not runs:
        raise ChainError(
            f'comparison: arm {arm!r} has no stage {base!r}; every arm, {CONTROL!r} included, runs every recipe'
        )
    for stage in runs:
        if (stage.init is None) != (arm == CONTROL):
            what = 'starts from random weights, so init must be None' if arm == CONTROL else 'needs init=STAGE'
            raise ChainError(f'comparison, stage {stage.name!r}: init={stage.init!r}; arm {arm!r} {what}')
        if stage.arm != arm:
            raise ChainError(f'comparison, stage {stage.name!r}: arm={stage.arm!r} must be {arm!r}')
        config = standing.config(stage)
        named = [hook.checkpoint for hook in config.get('custom_hooks') or [] if hook.get('checkpoint')]
        named += [config[key] for key in ('load_from', 'init') if config.get(key)]
        if named:
            raise ChainError(
                f'comparison, stage {stage.name!r}: its config loads {named[-1]} by itself; weights come from the arm '
                'alone: set it to None'
            )
    return runs


def _same_recipe(
    standing: Standing, recipe: str, groups: dict[str, list[Stage]], allow: list[str]
) -> list[dict[str, Any]]:
    """Refuse arms whose runs of a recipe differ, except in the keys of ``allow``; those differences are returned."""
    names = list(groups)
    first = groups[names[0]]
    allowed = []
    for arm in names[1:]:
        seeds, wanted = [s.seed for s in groups[arm]], [s.seed for s in first]
        if seeds != wanted:
            raise ChainError(
                f'comparison, {recipe}: {arm} has seeds {seeds}, {names[0]} has {wanted}; they are compared seed by '
                'seed, so give both the same'
            )
        for mine, theirs in zip(groups[arm], first):
            if (mine.gpus, mine.launcher, mine.kind) != (theirs.gpus, theirs.launcher, theirs.kind):
                raise ChainError(
                    f'comparison, {recipe}: kind, gpus or launcher of {mine.name!r} and {theirs.name!r} differ, and '
                    'with the devices the total batch'
                )
        lines = identity.differences(standing.learned(first[0]), standing.learned(groups[arm][0]))
        for line in lines:
            key = line.split(': ')[0]
            if not any(key == name or key.startswith(f'{name}.') for name in allow):
                raise ChainError(
                    f'comparison, {recipe}: {names[0]} and {arm} are trained differently ({line}); give both the same '
                    f'options, or add {key!r} to compare.allow in {standing.chain.path.name}: the page will say it'
                )
        if lines:
            allowed.append(dict(recipe=recipe, arm=arm, against=names[0], differences=lines))
    return allowed


# ---- the pretraining side


def _arm(standing: Standing, arm: str, runs: list[Stage]) -> dict[str, Any]:
    """Where the arm's encoder comes from and what is known of its pretraining."""
    if arm == CONTROL:
        return dict(source='none', encoder={}, pretraining={}, data=None, seeds=[], stage=None)
    parents = list(dict.fromkeys(stage.init for stage in runs))
    stage = standing.chain[parents[0]]
    bases = {standing.chain[name].base for name in parents}
    if len(bases) > 1:
        raise ChainError(f'comparison: arm {arm!r} starts from several stages, {sorted(bases)}; from one only')
    given = standing.given_checkpoint(stage)
    if given is not None:
        facts = compare_facts.of_checkpoint(given)
        return dict(
            source='checkpoint', path=str(given), sha256=standing.cache.file(given), stage=stage.name, seeds=[], **facts
        )
    config = standing.config(stage)
    return dict(
        source='config',
        path=str(stage.config),
        stage=stage.name,
        encoder=compare_facts.encoder(config),
        pretraining=compare_facts.pretraining(config),
        data=None,
        seeds=[standing.chain[name].seed for name in parents],
    )


def _fits(arm: str, encoder: dict[str, Any], recipe: str, backbone: dict[str, Any]) -> None:
    """An encoder of other sizes fails when it is loaded, after its pretraining; other heads load and compute nonsense.

    The input size may differ: position tables are resized, and the page says so.
    """
    for key in ('width', 'depth', 'heads', 'patch_size'):
        mine, wanted = encoder.get(key), backbone.get(key)
        if mine is not None and wanted is not None and mine != wanted:
            raise ChainError(
                f'comparison: {key} of arm {arm!r} is {mine}, recipe {recipe!r} is for {wanted}; compare encoders of '
                'one architecture, or give recipes of theirs with --with CHAIN'
            )
