"""What the command line says of resuming, against the config and the checkpoint."""

from __future__ import annotations

from mmengine.config import Config

from mim_mm.checkpoint.config_text import parse_config
from mim_mm.checkpoint.read import read_content
from mim_mm.engine.start.checks.words import ConfigError


def check_resume(cfg: Config, resume: str | None, options: dict) -> None:
    """Refuse two places to start from, and ``resume`` in a config, which tools/train.py does not read.

    Args:
        cfg: the resolved config, before ``resume`` and ``load_from`` are set from the command line.
        resume: of the command line; 'auto' starts from ``load_from`` where there is nothing to resume.
        options: ``--cfg-options``.

    Raises:
        ConfigError: with both, and which to leave out.
    """
    if cfg.get('resume') and resume is None:
        raise ConfigError(
            f'resume={cfg.resume}: a config does not decide this here: pass --resume (or --resume CKPT, --resume auto)'
        )
    load_from = cfg.get('load_from')
    named = resume not in (None, 'auto', 'latest')
    if load_from and resume not in (None, 'auto') and (named or 'load_from' in options):
        raise ConfigError(
            f'load_from={load_from}: --resume goes on from {"" if named else "the newest checkpoint of the work dir"}'
            f'{resume if named else ""}, and load_from would not be read: leave out one of them (--resume auto takes '
            'load_from where there is nothing to resume; --cfg-options load_from=None takes it out of a config)'
        )


def stored_meta(checkpoint: str) -> dict:
    """``meta`` of a checkpoint; empty without one, or where loading will complain. Tensors stay on the disk."""
    try:
        meta = read_content(checkpoint, mmap=True, verify=False).get('meta') or {}
    except Exception:  # whatever is wrong with the file is said when it is loaded
        return {}
    return meta if isinstance(meta, dict) else {}


def trained(meta: dict) -> tuple[int, int]:
    """(epochs, iterations) that a checkpoint has trained, by its ``meta``; 0 where it does not say."""
    epochs, iterations = (meta.get(key) if isinstance(meta.get(key), int) else 0 for key in ('epoch', 'iter'))
    return epochs, iterations


def stored_config(meta: dict) -> tuple[dict | None, str]:
    """The config that a checkpoint carries, read as data; or None and why there is none."""
    text = meta.get('cfg', meta.get('config'))  # as mmengine writes it; as it reads it
    if text is None:
        return None, 'it carries no config'
    try:
        return parse_config(text), ''
    except ValueError as error:
        return None, f'its config is no plain data: {error}'


def devices_then(meta: dict) -> int | None:
    """Processes of the run that wrote a checkpoint; None where it does not say."""
    devices = (meta.get('schedule') or {}).get('devices') if isinstance(meta.get('schedule'), dict) else None
    return devices if isinstance(devices, int) and devices > 0 else None


def check_not_past(cfg: Config, checkpoint: str, epochs: int, iterations: int) -> None:
    """Refuse a checkpoint that has trained longer than the config says; one at the very end has nothing left to do.

    Raises:
        ConfigError: with both durations.
    """
    loop = cfg.get('train_cfg') or {}
    for key, done in (('max_epochs', epochs), ('max_iters', iterations)):
        if isinstance(loop.get(key), int) and done > loop[key]:
            raise ConfigError(
                f'--resume: {checkpoint} has trained for {done} {"epochs" if key == "max_epochs" else "iterations"}, '
                f'past the end at train_cfg.{key}={loop[key]}: raise {key}, or resume from an earlier checkpoint'
            )
