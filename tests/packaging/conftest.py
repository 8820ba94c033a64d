import pytest
from built_wheel import build_wheel


@pytest.fixture(scope='session')
def built(tmp_path_factory):
    """The wheel built from the source distribution, which is built from a copy of the checkout; without network."""
    return build_wheel(tmp_path_factory.mktemp('build'))
