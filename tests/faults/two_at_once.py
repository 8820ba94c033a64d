"""A second training in the work dir of one that runs stops at once with a line; the first one ends as it would."""

import time

from small_training import Training

from mim_mm import files

NAME = 'two at once'


def trial(number, folder):
    """Even numbers: the first one ends by itself; odd: it is killed, and the second call goes on at once."""
    training = Training(folder)
    first = training.start(3, folder / 'first.log')
    try:
        end = time.monotonic() + 120
        while not (training.work / 'train.lock').is_file() or not (training.work / 'train.lock').read_bytes():
            if first.exitcode is not None or time.monotonic() > end:
                told = files.known_text(folder / 'first.log')[-300:]
                return False, f'the first training did not start: {told}'
            time.sleep(0.02)
        second = training.train(3)
        if second.returncode != 2 or f'pid {first.pid} on ' not in second.error:
            return False, f'the second one: exit {second.returncode}, {second.error}'
        if number % 2:
            first.kill()
            first.join()
            third = training.train(2, '--resume', 'auto')
            return third.returncode == 0, f'refused, and after SIGKILL: exit {third.returncode} {third.error}'
        first.join(120)
        code = first.exitcode
        whole = code == 0 and training.saved() == ['epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth']
        return whole, f'refused; the first one: exit {code}, {len(training.saved())} checkpoints'
    finally:
        if first.exitcode is None:
            first.kill()
            first.join()
