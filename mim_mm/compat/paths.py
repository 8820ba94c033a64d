"""Where ``configs/`` and ``tools/`` are: in the checkout, or in the ``.mim`` folder of an installed wheel."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def repo_root():
    """The folder that holds ``configs/`` and ``tools/``; paths in chain configs are relative to it.

    The checkout is preferred (an editable install runs what one edits), then ``mim_mm/.mim``.

    Raises:
        FileNotFoundError: neither is there; the package was copied without them.
    """
    candidates = (PACKAGE.parent, PACKAGE / '.mim')
    for folder in candidates:
        if (folder / 'configs').is_dir() and (folder / 'tools').is_dir():
            return folder
    raise FileNotFoundError(
        f'configs/ and tools/ of mim_mm are in neither of {", ".join(map(str, candidates))}. '
        f'Fix: install the wheel or the checkout with pip (`pip install -e .`), do not copy the package folder alone.'
    )


def configs_root():
    """The recipes: ``repo_root() / 'configs'``."""
    return repo_root() / 'configs'


def tools_root():
    """The commands: ``repo_root() / 'tools'``."""
    return repo_root() / 'tools'
