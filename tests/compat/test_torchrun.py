"""The socket that a store listens on is bound to the address given."""

import socket

import pytest

from mim_mm.compat.store_address import listener


def test_it_listens_on_the_address_alone(capsys):
    with listener('127.0.0.1', 0) as made:
        host, port = made.getsockname()[:2]
        assert host == '127.0.0.1' and port
        socket.create_connection((host, port), timeout=5).close()
        with pytest.raises(OSError, match=f'port {port} of 127.0.0.1 cannot be used.*set PORT'):
            listener('127.0.0.1', port)
    assert capsys.readouterr().err == ''


def test_where_nodes_could_not_meet_it_says_so(capsys):
    with listener('127.0.0.1', 0, nodes=2) as made:
        assert made.getsockname()[0] == '0.0.0.0'
    assert 'every interface: 127.0.0.1 is 127.0.0.1 here, where 2 nodes cannot meet' in capsys.readouterr().err
