"""The socket that a store listens on is bound to the address given."""

import importlib
import ipaddress
import socket
from pathlib import Path

import pytest
import torch

from mim_mm.compat.store_address import bind_env_store, listener


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


@pytest.mark.skipif(not Path('/proc/net/tcp').exists(), reason='needs Linux')
def test_the_store_of_a_slurm_step_listens_on_the_address_alone(monkeypatch):
    with socket.create_server(('127.0.0.1', 0)) as found:
        port = found.getsockname()[1]
    for name, value in dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=port, RANK=0, WORLD_SIZE=1).items():
        monkeypatch.setenv(name, str(value))
    rendezvous = importlib.import_module('torch.distributed.rendezvous')
    monkeypatch.setattr(rendezvous, 'TCPStore', rendezvous.TCPStore)  # put back after the test
    bind_env_store(nodes=1)
    torch.distributed.init_process_group('gloo')
    try:
        rows = [line.split() for kind in ('tcp', 'tcp6') for line in Path(f'/proc/net/{kind}').read_text().splitlines()]
        local = [row[1].split(':') for row in rows if row[3] == '0A']  # those that listen
        places = [int.from_bytes(bytes.fromhex(host), 'little') for host, number in local if int(number, 16) == port]
        assert [str(ipaddress.ip_address(place)) for place in places] == ['127.0.0.1']
    finally:
        torch.distributed.destroy_process_group()
