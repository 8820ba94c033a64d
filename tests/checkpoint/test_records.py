"""Records beside tensors come back as they were, and no form of them runs code."""

import argparse
import io
import pickle
from collections import OrderedDict

import malicious
import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import HistoryBuffer

from mim_mm.checkpoint.read import LoadError, read_content
from mim_mm.checkpoint.trust import trusting

ARRAYS = [
    np.arange(6, dtype=np.int64).reshape(2, 3),
    np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    np.array([1, 2], dtype='>i2'),
    np.array([True, False]),
    np.array(['a', 'bc']),
    np.array([1j, 2]),
    np.array([], dtype=np.uint8),
    np.array(3.5),
    np.array([1, 'x', None], dtype=object),
]


def through(value, tmp_path):
    torch.save(value, tmp_path / 'a.pth')
    return read_content(tmp_path / 'a.pth')


@pytest.mark.parametrize('array', ARRAYS, ids=lambda a: f'{a.dtype}{a.shape}')
def test_arrays(tmp_path, array):
    found = through(dict(a=[array, array]), tmp_path)['a'][1]
    assert type(found) is np.ndarray and found.dtype == array.dtype and found.shape == array.shape
    assert found.tolist() == array.tolist()


@pytest.mark.parametrize('number', [np.float64(2.5), np.int32(-3), np.bool_(True), np.str_('name'), np.float16(0.5)])
def test_numbers(tmp_path, number):
    found = through(dict(a=(number,)), tmp_path)['a'][0]
    assert found == number and type(found) is type(number)


def test_records_of_mmengine_and_argparse(tmp_path):
    buffer = HistoryBuffer([1.0, 2.0, 4.0], [1, 2, 1], max_length=7)
    content = OrderedDict(hub=dict(loss=buffer), cfg=ConfigDict(a=dict(b=1)), args=argparse.Namespace(lr=np.float64(1)))
    found = through(dict(content, more=slice(1, 2), weight=torch.ones(2)), tmp_path)
    loss = found['hub']['loss']
    assert type(loss) is HistoryBuffer and loss.max_length == 7
    assert [x.tolist() for x in loss.data] == [[1.0, 2.0, 4.0], [1, 2, 1]]
    assert loss.statistics('mean') == buffer.statistics('mean') == 7 / 4
    assert found['cfg'] == dict(a=dict(b=1)) and found['args'] == argparse.Namespace(lr=1.0)
    assert found['more'] == slice(1, 2) and found['weight'].tolist() == [1, 1]


def test_the_escape_works_where_the_real_things_are_allowed(tmp_path):
    """The reason for stand-ins: torch's safe reader with the classes that mmengine allows runs the code."""
    marker = tmp_path / 'ran'
    path = malicious.forged(tmp_path / 'a.pth', malicious.escape(marker))
    with torch.serialization.safe_globals([getattr, HistoryBuffer, argparse.Namespace]):
        torch.load(path, weights_only=True)
        marker.unlink()
        with pytest.raises(LoadError, match='__init__'):
            read_content(path)
    assert not marker.exists()


class Mine:
    """A class that a user of torch allows."""


def test_what_the_process_allows_stays_allowed(tmp_path):
    with torch.serialization.safe_globals([Mine, getattr]):
        before = set(torch.serialization.get_safe_globals())
        assert type(through(dict(a=Mine(), b=HistoryBuffer([1.0], [1])), tmp_path)['a']) is Mine
        assert set(torch.serialization.get_safe_globals()) == before > {Mine, getattr}
    with pytest.raises(LoadError, match='Mine'):
        read_content(tmp_path / 'a.pth')


@pytest.mark.parametrize('kind', malicious.KINDS)
def test_each_malicious_file_is_one(tmp_path, kind):
    """Read without care it leaves the marker; read by us it does not."""
    marker = tmp_path / 'ran'
    path = malicious.write(kind, tmp_path, dict(state_dict=dict(weight=torch.ones(1))), marker)
    if kind == 'config':
        assert read_content(path)['meta']['config'].startswith('open(')
        assert not marker.exists()
        Config.fromstring(torch.load(path, weights_only=True)['meta']['config'], '.py')
    else:
        with pytest.raises(LoadError):
            read_content(path)
        assert not marker.exists()
        if kind == 'tar':  # torch reads more of it than we wrote
            with tarfile_pickle(path) as stream:
                pickle.load(stream)
        else:
            torch.load(io.BytesIO(path.read_bytes()), weights_only=False)
    assert marker.exists()


def tarfile_pickle(path):
    import tarfile

    return io.BytesIO(tarfile.open(path).extractfile('pickle').read())


REFUSED = {
    'another attribute': malicious._attribute(
        malicious._global('mmengine.logging.history_buffer', 'HistoryBuffer'), '__init__'
    ),
    'an attribute of another owner': malicious._attribute(malicious._global('builtins', 'slice'), 'indices'),
    'an object array over bytes': malicious._global('numpy', 'ndarray') + b'K\x01' + malicious._text('O') + b'\x86R',
    'another class as array': malicious._global('numpy._core.multiarray', '_reconstruct')
    + malicious._global('argparse', 'Namespace')
    + b'\x85R',
    'a structure': malicious._global('numpy', 'dtype') + malicious._text('V8') + b'\x85R',
    'a pointer as number': malicious._global('numpy._core.multiarray', 'scalar')
    + malicious._global('numpy', 'dtype')
    + malicious._text('O8')
    + b'\x85R'
    + malicious._text('12345678')
    + b'\x86R',
}


@pytest.mark.parametrize('opcodes', REFUSED.values(), ids=REFUSED)
def test_forms_that_no_checkpoint_has(tmp_path, opcodes):
    with pytest.raises(LoadError):
        read_content(malicious.forged(tmp_path / 'a.pth', opcodes))


def test_trust_lets_a_file_run_code_for_a_piece_of_work(tmp_path):
    path = malicious.write('object', tmp_path, dict(state_dict=dict(weight=torch.ones(1))), tmp_path / 'ran')
    with pytest.raises(LoadError, match=r'open.*may run code of the file.*--trust-pickle.*trust_pickle=True'):
        read_content(path)
    with trusting(False), pytest.raises(LoadError):
        read_content(path)
    with trusting():
        assert read_content(path)['state_dict']['weight'].tolist() == [1]
    assert (tmp_path / 'ran').exists()
    with pytest.raises(LoadError):
        read_content(path)


@pytest.mark.parametrize('content', [b'', b'\x80\x02.', b'not one' * 50, b'\x80\x05\x95', bytes(range(256)) * 4])
@pytest.mark.parametrize('name', ['a.pth', 'a.safetensors'])
@pytest.mark.parametrize('trust', [False, True])
def test_files_of_another_kind(tmp_path, content, name, trust):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LoadError, match=name):
        read_content(tmp_path / name, trust)
