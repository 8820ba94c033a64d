"""Names of chains, jobs, partitions and folders that a shell, Slurm or Python read otherwise; what is passed on."""

import os
from pathlib import Path

import pytest
from processes import run

from mim_mm.transfer import ChainError
from mim_mm.transfer.call import Call, transfer_command
from mim_mm.transfer.chain import check_name, check_written_folder

ODD = ('', ' ', '-x', '../x', 'a/../../b', '/abs', '~root', 'a;b', 'a$(touch x)', 'a`touch x`', "a'b", 'a"b', 'a%j',
       'a\nb', 'a\\b', 'a{b}', 'a\0b', 3, None)  # fmt: skip


@pytest.mark.parametrize('name', ODD, ids=repr)
def test_a_chain_is_not_called_so(name):
    with pytest.raises(ChainError, match='becomes a folder and the name of jobs'):
        check_name(name, 'chain.py')


@pytest.mark.parametrize('name', ['emae_vitb_300e', 'my chain', 'v1.2-b', 'Größe'])
def test_ordinary_names_pass(name):
    assert check_name(name, 'chain.py') == name


@pytest.mark.parametrize('folder', ["a'''b", "a'", 'a\\b', 'a\nb'])
def test_folders_that_no_written_config_can_name(tmp_path, folder):
    with pytest.raises(ChainError, match='take a folder without'):
        check_written_folder(tmp_path / folder)


@pytest.mark.parametrize('folder', ['a b', 'a"b', "it's", 'a%b', 'Größe', 'a$b', 'a;b'])
def test_odd_but_possible_folders_are_read_back(tmp_path, folder):
    check_written_folder(tmp_path / folder)
    text = f"where = r'''{(tmp_path / folder).resolve()}'''"
    read = {}
    exec(text, read)  # as configs are written and read
    assert Path(read['where']) == (tmp_path / folder).resolve()


@pytest.mark.process
@pytest.mark.parametrize('partition, job', [
    ('gpu; touch ran', 'job'), ('$(touch ran)', 'job'), ('-x', 'job'), ('gpu', '../job'), ('gpu', 'a%j'), ('gpu', '-x'),
])  # fmt: skip
def test_slurm_names_never_reach_srun(tmp_path, partition, job):
    fake = tmp_path / 'srun'
    fake.write_text(f'#!/bin/sh\ntouch {tmp_path}/reached\n')
    fake.chmod(0o755)
    done = run(['tools/slurm_train.sh', partition, job, 'c.py'], PATH=f'{tmp_path}:{os.environ["PATH"]}')
    assert done.returncode == 2 and ('PARTITION is' in done.stderr or 'JOB_NAME is' in done.stderr)
    assert not (tmp_path / 'reached').exists() and not Path('ran').exists()


def test_trust_reaches_the_calls_of_a_chain():
    assert '--trust-pickle' in transfer_command(Call('c.py', trust_pickle=True))
    assert '--trust-pickle' not in transfer_command(Call('c.py'))
    command = transfer_command(Call('c.py', log=['tensorboard', 'mlflow']))
    assert command[command.index('--log') :] == ['--log', 'tensorboard', 'mlflow']
