"""Whatever mmengine, mmpretrain and mmdet load goes through our reader, and none of them runs a config out of a file.

mmengine's loader reads without care what it could not read with care, or (0.10.7 on a torch before 2.6) always, and
fetches from addresses without care; ``Runner.resume`` and an inferencer without a config execute the text of a config
that lies in the checkpoint. Here

* ``torch.load`` of the modules that load files is :func:`mim_mm.checkpoint.read.read_content`, ``load_url`` as well;
* while a Runner resumes, ``Config.fromstring`` reads its text as data;
* an inferencer that is given weights alone is refused;
* ``find_latest_checkpoint`` is :func:`mim_mm.checkpoint.atomic.latest_checkpoint`: the files of this work dir;
* ``trust_pickle=True`` of a Runner's config, or ``mim_mm.checkpoint.trust.trusting()``, lets a file run code.
"""

import functools
import os
import types
from contextvars import ContextVar
from urllib.parse import urlparse

from mim_mm.compat.on_import import after_import

# Every module of theirs that calls torch.load and is part of the packages, not of their converters.
LOADERS = (
    'mmengine.runner.checkpoint',
    'mmpretrain.apis.multimodal_retrieval',
    'mmpretrain.engine.hooks.swav_hook',
    'mmpretrain.models.multimodal.ram.openset_utils',
    'mmpretrain.models.retrievers.image2image',
    'mmpretrain.models.utils.vector_quantizer',
)
RUNNERS = {'mmengine.runner.runner': 'Runner', 'mmengine.runner._flexible_runner': 'FlexibleRunner'}
# In these a Runner reads files; the model is built before any other.
READING = ('build_model', 'train', 'val', 'test', 'load_checkpoint', 'resume')

_RESUMING = ContextVar('resuming', default=False)


class _Torch(types.ModuleType):
    """torch as a module of theirs sees it: all of it, with our reader as ``load``."""

    def __init__(self, torch):
        super().__init__('torch', 'torch, with the reader of mim_mm.checkpoint as torch.load')
        self.whole = torch

    def __getattr__(self, name):
        return getattr(self.whole, name)

    @staticmethod
    def load(f, map_location=None, pickle_module=None, *, weights_only=None, mmap=None, **_):
        from mim_mm.checkpoint.read import read_content

        return read_content(f, map_location=map_location, mmap=bool(mmap))


def load_url(url, model_dir=None, map_location=None, progress=True, check_hash=False, file_name=None):
    """As torch.hub's ``load_state_dict_from_url``: fetched once, then read from the disk; by our reader."""
    from torch import hub

    folder = model_dir or os.path.join(hub.get_dir(), 'checkpoints')
    name = file_name or os.path.basename(urlparse(url).path)
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        os.makedirs(folder, exist_ok=True)
        found = hub.HASH_REGEX.search(name) if check_hash else None
        hub.download_url_to_file(url, path, found and found.group(1), progress=progress)
    return _Torch.load(path, map_location=map_location)


def _read_by_us(module):
    if not isinstance(module.torch, _Torch):
        module.torch = _Torch(module.torch)
    if hasattr(module, 'load_url'):
        module.load_url = load_url


def _text_as_data(module):
    theirs = module.Config.fromstring
    if hasattr(theirs, 'reads_data'):
        return

    @functools.wraps(theirs)
    def fromstring(cfg_str, file_format):
        if not _RESUMING.get():
            return theirs(cfg_str, file_format)
        from mim_mm.checkpoint.config_text import parse_config

        try:
            return module.Config(parse_config(cfg_str))
        except ValueError as error:
            from mmengine.logging import print_log

            text = f'WARNING: meta.config of the checkpoint is not looked at, and nothing of it is executed: {error}'
            print_log(text, logger='current')
            return module.Config()

    fromstring.reads_data = True
    module.Config.fromstring = staticmethod(fromstring)


def find_latest_checkpoint(path):
    """Theirs follows an absolute path in ``last_checkpoint``, out of a work dir that was copied."""
    from mim_mm.checkpoint.atomic import latest_checkpoint

    found = latest_checkpoint(path)
    return None if found is None else str(found)


def _guard_runner(module):
    module.find_latest_checkpoint = find_latest_checkpoint
    kind = getattr(module, RUNNERS[module.__name__])
    for name in READING:
        method = getattr(kind, name, None)
        if method is not None and not hasattr(method, 'reads_by_us'):
            setattr(kind, name, _guarded(method, name == 'resume'))


def _guarded(method, resumes):
    """``method`` of a Runner, with the trust that its config gives, and with texts of configs as data if it resumes."""

    @functools.wraps(method)
    def guarded(self, *args, **kwargs):
        from mim_mm.checkpoint.trust import trusting

        token = _RESUMING.set(resumes or _RESUMING.get())
        try:
            with trusting((getattr(self, 'cfg', None) or {}).get('trust_pickle') is True):
                return method(self, *args, **kwargs)
        finally:
            _RESUMING.reset(token)

    guarded.reads_by_us = True
    return guarded


def _config_first(module):
    theirs = module.BaseInferencer._init_model
    if hasattr(theirs, 'reads_by_us'):
        return

    @functools.wraps(theirs)
    def init_model(self, cfg, weights, *args, **kwargs):
        from mim_mm.checkpoint.read import LoadError
        from mim_mm.checkpoint.trust import trusted

        if not cfg and not trusted():
            raise LoadError(
                f'{weights} is given without a config: the one that lies in a checkpoint is a program and is not run. '
                'Give the config as well (model=CONFIG), or call this within mim_mm.checkpoint.trust.trusting() if you '
                'trust the author of the file.'
            )
        return theirs(self, cfg, weights, *args, **kwargs)

    init_model.reads_by_us = True
    module.BaseInferencer._init_model = init_model


def install():
    """From here on nothing that is loaded runs code; nothing is imported for it."""
    for name in LOADERS:
        after_import(name, _read_by_us)
    for name in RUNNERS:
        after_import(name, _guard_runner)
    after_import('mmengine.config.config', _text_as_data)
    after_import('mmengine.infer.infer', _config_first)
