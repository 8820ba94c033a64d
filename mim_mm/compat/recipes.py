"""Makes ``_base_ = 'mim_mm::emae/emae_vits_300e.py'`` an ordinary base, wherever the package lies.

mmengine knows a fixed table of packages. It also writes ``_scope_=<package>`` into every outer dict of a foreign base:
into arguments of functions, which do not know the word (``default_collate``), and the name of *our* scope into recipes
that are written for mmpretrain's and mmdet's. Our recipes name their scope themselves (``default_scope``, ``_scope_``,
``type='mim_mm.…'``), so for them ``mim_mm::`` is an address and nothing else.
"""

import difflib
import functools
from pathlib import Path

from mim_mm.compat import paths
from mim_mm.compat.on_import import after_import

PREFIX = 'mim_mm::'


def find(name: str) -> Path:
    """The file of a recipe named below ``configs/``.

    Args:
        name: e.g. ``'emae/emae_vits_300e.py'``, with or without the ending.

    Raises:
        FileNotFoundError: naming the recipes that are spelt alike.
    """
    root = paths.configs_root()
    for path in (root / name, root / f'{name}.py'):
        if path.is_file():
            return path
    there = [path.relative_to(root).as_posix() for path in root.rglob('*.py')]
    near = difflib.get_close_matches(name, there, n=3, cutoff=0.4)
    raise FileNotFoundError(
        f"'{PREFIX}{name}' names no recipe of {root}" + (f'; near it: {", ".join(near)}' if near else '')
    )


def _know_the_package(utils):
    utils.MODULE2PACKAGE.setdefault('mim_mm', 'mim_mm')


def _resolve_ours(module):
    theirs = module.Config._get_cfg_path
    if getattr(theirs, 'knows_mim_mm', False):
        return

    @functools.wraps(theirs)
    def resolve(cfg_path, filename):
        if cfg_path.startswith(PREFIX):
            return str(find(cfg_path[len(PREFIX) :])), None
        return theirs(cfg_path, filename)

    resolve.knows_mim_mm = True
    module.Config._get_cfg_path = staticmethod(resolve)


def _offer_ours(module):
    theirs = module.get_config
    if getattr(theirs, 'knows_mim_mm', False):
        return

    @functools.wraps(theirs)
    def get_config(cfg_path, pretrained=False):
        if not cfg_path.startswith(PREFIX):
            return theirs(cfg_path, pretrained)
        if pretrained:
            raise ValueError(f'pretrained=True: no weights are published with {cfg_path}; load a checkpoint of yours')
        from mmengine.config import Config

        return Config.fromfile(find(cfg_path[len(PREFIX) :]))

    get_config.knows_mim_mm = True
    module.get_config = get_config


def install():
    """From here on mmengine reads ``mim_mm::`` names; nothing is imported for it."""
    after_import('mmengine.config.utils', _know_the_package)
    after_import('mmengine.config.config', _resolve_ours)
    for name in ('mmengine.hub.hub', 'mmengine.hub'):
        after_import(name, _offer_ours)
