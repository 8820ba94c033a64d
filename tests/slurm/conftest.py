"""Tests against a real Slurm; run by `make test-slurm`, skipped elsewhere."""

import os

import pytest


def pytest_collection_modifyitems(items):
    if not os.environ.get('MIM_MM_PRIVATE_SLURM'):
        reason = 'needs a private Slurm: make test-slurm (root; apt-get install slurm-wlm munge; pip install submitit)'
        for item in items:
            if 'tests/slurm/' in item.path.as_posix():
                item.add_marker(pytest.mark.skip(reason=reason))
