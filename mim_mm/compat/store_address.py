"""Where the store of a job listens, started by torchrun or by srun: on the address that it was given alone.

torch's own listens on every interface of the machine, and whoever reaches it can write what the processes read there.
Port 0 is one that the system chooses, which stays taken from then on: nobody else can get it in between.
"""

from __future__ import annotations

import importlib
import ipaddress
import socket
import sys


def listener(host: str, port: int, nodes: int = 1) -> socket.socket:
    """A socket that listens on ``host`` alone.

    Where that cannot be, on every interface, and says so: a name that this machine takes for itself alone (127.0.1.1)
    while other nodes come, or an address that it is known by elsewhere only.

    Raises:
        OSError: the port is taken.
    """
    try:
        family, _, _, _, address = sorted(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))[0]
    except OSError as error:
        raise OSError(f'MASTER_ADDR={host} is no address that this machine knows ({error})') from error
    if nodes > 1 and ipaddress.ip_address(address[0].partition('%')[0]).is_loopback:
        return _everywhere(port, f'{host} is {address[0]} here, where {nodes} nodes cannot meet')
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind(address)
    except OSError as error:
        made.close()
        if not _elsewhere(error):
            raise OSError(f'port {port} of {host} cannot be used ({error}): set PORT to a free one') from error
        return _everywhere(port, f'{host} ({address[0]}) is no address of this machine')
    made.listen(1024)
    return made


def _elsewhere(error: OSError) -> bool:
    import errno

    return error.errno == errno.EADDRNOTAVAIL


def _everywhere(port: int, why: str) -> socket.socket:
    print(f'WARNING: the store of torch.distributed listens on every interface: {why}', file=sys.stderr)
    made = socket.create_server(('', port), backlog=1024)
    return made


def bind_store() -> None:
    """From here on the first node of a static rendezvous listens on its address."""
    from torch.distributed import TCPStore
    from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous

    theirs = StaticTCPRendezvous.next_rendezvous

    def next_rendezvous(self):
        if self.rank == 0 and not self._store:
            made = listener(self.master_addr, self.master_port, self.world_size)
            self.master_port = made.getsockname()[1]
            self._store = TCPStore(
                self.master_addr, self.master_port, self.world_size, True, self.timeout,
                multi_tenant=True, master_listen_fd=made.detach(),
            )  # fmt: skip
        return theirs(self)

    StaticTCPRendezvous.next_rendezvous = next_rendezvous


def bind_env_store(nodes: int) -> None:
    """From here on the process of rank 0 that meets the others by MASTER_ADDR and MASTER_PORT listens on that address.

    For processes that no torchrun started: those of a Slurm step. Their first one makes the store itself.
    """
    from torch.distributed import TCPStore

    rendezvous = importlib.import_module('torch.distributed.rendezvous')  # whose name a function of it has taken

    def bound(host_name, port, world_size=None, is_master=False, *more, **options):
        if is_master:
            options['master_listen_fd'] = listener(host_name, port, nodes).detach()
        return TCPStore(host_name, port, world_size, is_master, *more, **options)

    rendezvous.TCPStore = bound
