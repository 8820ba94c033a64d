"""The plain records that checkpoints of mmengine, MAE and DINO hold beside tensors, read by code of ours alone.

Training files pickle log buffers (with numpy arrays and the names of methods), numpy numbers, ``ConfigDict`` and
argparse's namespace. To allow those classes and functions themselves, as mmengine's own list does, is to allow any
code: with ``getattr`` and one class whose attributes can be set, a file reaches ``exec``. So each name stands for a
small class or function here that takes plain values of the expected kind and nothing else, and :func:`restored` makes
the real objects of them when the file has been read.
"""

from __future__ import annotations

import argparse
import functools
import re

import numpy as np

_PLAIN_TYPE = re.compile(r'\|?(b1|i[1248]|u[1248]|f[248]|c8|c16|[SU]\d+|O8|bool|float\d+|u?int\d+|complex\d+)')


class RecordError(ValueError):
    """A record of another form than those that are read."""


class _Stand:
    """What is made while the file is read; ``made()`` is what it stands for."""

    __slots__ = ('state',)

    def __new__(cls):  # the unpickler calls this without __init__
        self = super().__new__(cls)
        self.state = None
        return self


class _Dtype(_Stand):
    """``numpy.dtype``: numbers, truth values, text and lists of objects; no structures."""

    __slots__ = ()
    __module__, __qualname__ = 'numpy', 'dtype'

    def __new__(cls, name='', *_):
        self = super().__new__(cls)
        if not (isinstance(name, str) and _PLAIN_TYPE.fullmatch(name)):
            raise RecordError(f'an array of type {name!r}')
        self.state = np.dtype(name)
        return self

    def __setstate__(self, state) -> None:
        if state[1] in ('<', '>'):  # the other entries belong to structures
            self.state = self.state.newbyteorder(state[1])


class _Array(_Stand):
    """``numpy.ndarray``, from its shape, type and bytes; an array of objects from its list."""

    __slots__ = ()
    __module__, __qualname__ = 'numpy', 'ndarray'

    def __setstate__(self, state) -> None:
        _, shape, kind, fortran, content = state
        dtype = _type_of(kind)
        if dtype.hasobject:
            values = np.empty(len(content), dtype=object)
            values[:] = list(content)
        else:
            values = np.frombuffer(_bytes(content), dtype).copy() if content else np.empty(0, dtype)
        self.state = values.reshape(tuple(shape), order='F' if fortran else 'C')

    def made(self):
        if self.state is None:
            raise RecordError('an array without content')
        if self.state.dtype.hasobject:
            self.state.flat = [restored(value) for value in self.state.flat]
        return self.state


class _Buffer(_Stand):
    """mmengine's ``HistoryBuffer``."""

    __slots__ = ()
    __module__, __qualname__ = 'mmengine.logging.history_buffer', 'HistoryBuffer'

    def __setstate__(self, state) -> None:
        self.state = {name: state[name] for name in ('_log_history', '_count_history', 'max_length') if name in state}

    def made(self):
        from mmengine.logging import HistoryBuffer

        state = {name: restored(value) for name, value in (self.state or {}).items()}
        log, count = state.get('_log_history', ()), state.get('_count_history', ())
        return HistoryBuffer(log, count, int(state.get('max_length', 1000000)))


class _Namespace(_Stand):
    """``argparse.Namespace``."""

    __slots__ = ()
    __module__, __qualname__ = 'argparse', 'Namespace'

    def __setstate__(self, state) -> None:
        self.state = dict(state)

    def made(self):
        return argparse.Namespace(**{str(name): restored(value) for name, value in (self.state or {}).items()})


def _type_of(kind) -> np.dtype:
    if type(kind) is not _Dtype:
        raise RecordError(f'an array of type {kind!r}')
    return kind.state


def _bytes(content) -> bytes:
    return content.encode('latin1') if isinstance(content, str) else bytes(content)


def _reconstruct(kind, shape=(), code=b'') -> _Array:
    if kind is not _Array:
        raise RecordError(f'an array of class {kind!r}')
    return _Array()


def _no_bytes() -> bytes:
    """``bytes()``, as b'' is pickled; others are strings that are encoded."""
    return b''


def _scalar(kind, content):
    dtype = _type_of(kind)
    if dtype.hasobject:
        raise RecordError('a number of type object')
    return np.frombuffer(_bytes(content), dtype, count=1)[0]


def _attribute(owner, name: str) -> None:
    """``getattr``: a log buffer pickles the names of its statistics, which every buffer has anyway."""
    if owner is not _Buffer or not re.fullmatch(r'[a-z][a-z_]*', name):
        raise RecordError(f'getattr({owner!r}, {name!r})')


_CLASSES = (_Dtype, _Array, _Buffer, _Namespace)
for _class in _CLASSES:
    _class.__name__ = _class.__qualname__  # torch 2.4 goes by it


def stand_ins() -> list:
    """For ``torch.serialization.add_safe_globals``, which goes by the module and name that a class or function has."""
    functions = [('mmengine.config.config', 'ConfigDict', dict)]
    functions += [('builtins', 'getattr', _attribute), ('builtins', 'bytes', _no_bytes)]
    for core in ('numpy._core.multiarray', 'numpy.core.multiarray'):  # of numpy 2 and 1, whichever is installed here
        functions += [(core, '_reconstruct', _reconstruct), (core, 'scalar', _scalar)]
    parts = [slice, *_CLASSES]
    for module, name, function in functions:
        part = functools.partial(function)
        part.__module__, part.__name__, part.__qualname__ = module, name, name
        parts.append(part)
    return parts


def restored(value):
    """The content of a file with real objects for the stand-ins; dictionaries and lists are changed in place."""
    if isinstance(value, _Dtype):
        return value.state
    if isinstance(value, _Stand):
        return value.made()
    if isinstance(value, dict):
        for key, inner in value.items():
            value[key] = restored(inner)
    elif isinstance(value, list):
        value[:] = [restored(inner) for inner in value]
    elif type(value) is tuple:
        return tuple(restored(inner) for inner in value)
    return value
