"""torchrun, but it passes signals on, says in one line which rank ended how, and ends with that rank's exit code.

torch's own ends at a signal with a traceback and code 1, gives its ranks 30 s to save, and knows neither the exit code
75 (saved, call again) nor 130 (Ctrl-C). Its store listens on one address (:mod:`mim_mm.compat.store_address`).
``python -m mim_mm.compat.torchrun`` takes the same arguments; it is what ``tools/torchrun.sh`` starts.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys

INTERRUPTED = 128 + signal.SIGINT
POLITE = {75: 'asked to stop', INTERRUPTED: 'Ctrl-C', 2: 'refused'}  # they have said why themselves
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def children(parent: int) -> list[int]:
    """Processes that ``parent`` started, where /proc tells."""
    found = []
    for name in os.listdir('/proc') if os.path.isdir('/proc') else ():
        if name.isdigit():
            try:
                with open(f'/proc/{name}/stat') as file:
                    fields = file.read().rpartition(')')[2].split()
            except OSError:
                continue
            if fields[0] not in 'ZX' and int(fields[1]) == parent:
                found.append(int(name))
    return found


class PassOn:
    """A signal handler: the ranks get the signal, and torchrun goes on watching them, however long they save."""

    def __init__(self) -> None:
        self.got = 0

    def __call__(self, number: int, frame) -> None:
        ranks = children(os.getpid())
        if not self.got:
            self.got = number
        if not ranks:  # before the first is started there is nothing to save
            raise SystemExit(128 + number)
        for pid in ranks:
            try:
                os.kill(pid, signal.SIGTERM if number == signal.SIGHUP else number)
            except ProcessLookupError:
                continue


def in_words(failure, host: str) -> str:
    """How a rank ended, from torch's ``ProcessFailure``."""
    code, rank = failure.exitcode, failure.local_rank
    how = f'exit code {code}'
    if code < 0:
        how = signal.Signals(-code).name
        how += {signal.SIGKILL: ' (killed from outside; mostly the memory of the machine was used up)'}.get(-code, '')
    return f'rank {rank} of this machine ({host}, pid {failure.pid}) ended with {how}'


def main(arguments: list[str] | None = None) -> int:
    """Run; returns the exit code: 0, 75, 130 or 2 as the ranks had it, else 1."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing import api
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    from mim_mm.compat.store_address import bind_store

    bind_store()
    pass_on = PassOn()
    api._terminate_process_handler = pass_on  # what torch installs for SIGTERM, SIGINT, SIGHUP and SIGQUIT
    for number in PASSED_ON:
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, pass_on)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        os.environ.setdefault('TORCHELASTIC_SIGNALS_TO_HANDLE', 'SIGTERM,SIGINT,SIGQUIT')
    # What it says of the end is said below in one line.
    logging.getLogger('torch.distributed.elastic').setLevel(logging.CRITICAL)
    try:
        run.run(run.parse_args(arguments))
    except OSError as error:  # the port or the address of the store
        print(f'error: {error}', file=sys.stderr)
        return 2
    except ChildFailedError as error:
        first = min(error.failures.values(), key=lambda failure: failure.timestamp)
        codes = {failure.exitcode for failure in error.failures.values()}
        for code in (INTERRUPTED, 75):
            # Whoever was still ending got SIGTERM from torchrun; that is no failure.
            if code in codes and pass_on.got and codes <= {code, 0, -signal.SIGTERM}:
                return code
        if pass_on.got and codes <= {-pass_on.got, 0, -signal.SIGTERM}:  # before the training listened
            return 128 + pass_on.got
        if first.exitcode not in POLITE:
            text = in_words(first, socket.gethostname())
            print(f'error: {text}; the others were ended. --resume goes on from the last checkpoint', file=sys.stderr)
        return first.exitcode if first.exitcode in POLITE else 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
