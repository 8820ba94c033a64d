"""A chain on the stand-in training script, built in a temporary folder, and a way to call it."""

import io
import json
import subprocess
import sys
import time
from pathlib import Path

from mim_mm.transfer import Call, run_chain
from mim_mm.transfer.display import Display
from mim_mm.transfer.launch import Scripts

STAND_IN = Path(__file__).with_name('stand_in_train.py')


class Workplace:
    """Configs, a chain and its work dir below one folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.work = folder / 'work'
        self.chain = folder / 'chain.py'
        self.config('pretrain', load=False)
        for name in ('linear', 'finetune', 'coco'):
            self.config(name)

    def config(self, name: str, load: bool = True, **settings) -> Path:
        settings = dict(dict(epochs=3, lr=0.1), **settings)
        if load:
            settings['custom_hooks'] = [dict(type='mim_mm.LoadPretrainedHook', checkpoint=None)]
        path = self.folder / f'{name}.py'
        path.write_text(''.join(f'{key} = {value!r}\n' for key, value in settings.items()))
        return path

    def stage(self, name: str, init='pretrain', **keys) -> dict:
        kind = keys.pop('kind', name)
        return dict(kind=kind, config=str(self.folder / f'{name}.py'), init=init, **keys)

    def write(self, with_report: bool = False, **stages) -> None:
        if not stages:
            stages = dict(
                pretrain=self.stage('pretrain', init=None, arm='emae'),
                linear=self.stage('linear'),
                finetune=self.stage('finetune'),
                coco=self.stage('coco'),
            )
        if with_report:
            stages['report'] = dict(kind='report')
        self.chain.write_text(f'name = "tiny"\nstages = {stages!r}\n')

    def run(self, **options) -> tuple:
        """(exit code, what was said). ChainError passes through."""
        stream = io.StringIO()
        call = Call(str(self.chain), work_dir=str(self.work), gpus=0, grace_s=5.0, **options)
        code = run_chain(call, Display(stream, every_s=0.0), Scripts(STAND_IN, STAND_IN))
        return code, stream.getvalue()

    def record(self, stage: str) -> dict:
        return json.loads((self.work / stage / 'run.json').read_text())

    def log(self, stage: str) -> str:
        return (self.work / stage / 'chain.log').read_text()

    def files(self) -> list:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob('*'))

    def start(self, **options) -> subprocess.Popen:
        """The same call as a process of its own, which can be killed."""
        code = (
            'import sys; from mim_mm.transfer import Call, run_chain; from mim_mm.transfer.launch import Scripts\n'
            f'scripts = Scripts({str(STAND_IN)!r}, {str(STAND_IN)!r})\n'
            f'sys.exit(run_chain(Call({str(self.chain)!r}, work_dir={str(self.work)!r}, gpus=0, grace_s=5.0, '
            f'**{options!r}), scripts=scripts))'
        )
        return subprocess.Popen(
            [sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )


def wait_for(condition, what: str, seconds: float = 60.0):
    """The first true value of ``condition()``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f'waited {seconds} s for {what}')
