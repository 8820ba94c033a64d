"""Where the tasks of a Slurm step meet."""

import pytest
from mmengine.config import Config

from mim_mm.engine.start import launch, slurm_env


def test_rendezvous_of_a_task():
    env = dict(SLURM_PROCID='5', SLURM_NTASKS='8', SLURM_LOCALID='1', SLURM_JOB_ID='100', SLURM_STEP_ID='2',
               SLURM_STEP_NODELIST='gpu[3-4]', SLURM_JOB_NODELIST='gpu[1-4]')  # fmt: skip
    found = slurm_env.rendezvous(env, 4, lambda nodes: {'gpu[3-4]': ['gpu3', 'gpu4']}[nodes])
    assert found['MASTER_ADDR'] == 'gpu3', 'the first node of the step, not of the job'
    assert (found['RANK'], found['WORLD_SIZE'], found['LOCAL_RANK']) == ('5', '8', '1')
    other = slurm_env.rendezvous(dict(env, SLURM_JOB_ID='101'), 4, lambda nodes: ['gpu3'])
    assert found['MASTER_PORT'] != other['MASTER_PORT'] and 1024 < int(found['MASTER_PORT']) < 32768
    bound = slurm_env.rendezvous(env, 1, lambda nodes: ['gpu3'])
    assert bound['LOCAL_RANK'] == '0', 'a task that sees one device uses device 0'
    kept = slurm_env.rendezvous(dict(env, MASTER_ADDR='10.0.0.1', MASTER_PORT='1234'), 0, lambda nodes: 1 / 0)
    assert (kept['MASTER_ADDR'], kept['MASTER_PORT'], kept['LOCAL_RANK']) == ('10.0.0.1', '1234', '1')
    with pytest.raises(RuntimeError, match='SLURM_PROCID is not set.*slurm_train.sh'):
        slurm_env.rendezvous({}, 0)


def test_a_plain_node_name_needs_no_scontrol(monkeypatch):
    monkeypatch.setenv('PATH', '')
    assert slurm_env.hostnames('gpu-7') == ['gpu-7']
    with pytest.raises(RuntimeError, match='set MASTER_ADDR by hand'):
        slurm_env.hostnames('gpu[1-2]')


def test_outside_of_srun_the_fix_is_said(monkeypatch, capsys):
    for name in ('SLURM_PROCID', 'SLURM_NTASKS'):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit) as end:
        launch._build_runner(Config(dict(launcher='slurm')))
    assert end.value.code == 2 and 'this is no task of srun' in capsys.readouterr().err
