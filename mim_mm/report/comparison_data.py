"""What a comparison's page is made of: ``compare.json``, and the finished runs arm by arm and seed by seed."""

from __future__ import annotations

from mim_mm import files
from mim_mm.report.collect import Chain, Run
from mim_mm.report.damage import no_comparison
from mim_mm.report.tables import HEADLINE, METRICS, Metric, metric_of

__all__ = ['SCRATCH', 'columns', 'read_comparison', 'runs_of', 'values_of']

SCRATCH = 'scratch'


def read_comparison(chain: Chain) -> dict | None:
    """The content of compare.json; None for an ordinary chain, or when the file is damaged (said in the notes)."""
    path = chain.folder / 'compare.json'
    if not path.is_file():
        return None
    fix = 'the next call of tools/transfer.py writes it anew'
    try:
        content = files.read_json(path, fix)
        wrong = no_comparison(content)
        if wrong:
            chain.notes.append(f'{path} is damaged ({wrong}): {fix}.')
            return None
        return content if content['schema'] == 1 and content['arms'] and content['recipes'] else None
    except files.DamagedFile as error:
        chain.notes.append(f'{error}.')
    except (KeyError, TypeError) as error:
        chain.notes.append(f'{path} is no comparison ({error!r}): {fix}.')
    return None


def runs_of(chain: Chain, base: str) -> list[Run]:
    """All seeds of a stage, by the name that the chain config gives it."""
    return [run for run in chain.runs if run.stage.removesuffix(f'-s{run.seed}') == base]


def metrics_of_kind(chain: Chain, kind: str) -> list[Metric]:
    """The columns of a kind; for a kind that no table knows, the first numbers its runs left, as they are."""
    known = [metric for metric in METRICS if metric.kind == kind]
    if known:
        return [metric for metric in known if metric.name in HEADLINE] or known
    keys = list(dict.fromkeys(key for run in chain.of(kind, done=True) for key in run.metrics))
    return [Metric(key, key, kind, key, 1.0) for key in keys[:3]]


def values_of(chain: Chain, base: str, metric: Metric) -> dict:
    """Seed -> value in per cent, of the runs that are done."""
    found = {run.seed: metric_of(run, metric) for run in runs_of(chain, base)}
    return {seed: value for seed, value in found.items() if value is not None}


def columns(chain: Chain, content: dict) -> list[tuple]:
    """``(recipe, metric, title, {arm: {seed: value}})`` of everything that is compared, in the order of the recipes."""
    kinds = [recipe['kind'] for recipe in content['recipes'].values()]
    out = []
    for name, recipe in content['recipes'].items():
        for metric in metrics_of_kind(chain, recipe['kind']):
            title = metric.title if kinds.count(recipe['kind']) == 1 else f'{name}: {metric.title}'
            values = {arm: values_of(chain, base, metric) for arm, base in recipe['stages'].items()}
            out.append((name, metric, title, values))
    return out
