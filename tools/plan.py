#!/usr/bin/env python
"""What a recipe or a chain will cost before it runs: hours, GPU-hours, memory, disk, energy, CPU cores, scaling.

python tools/plan.py configs/chains/emae_vitb_800e.py --gpus 8 --gpu h100
python tools/plan.py configs/emae/emae_vitl_800e.py --gpus 64 --gpu a100-80 --slides --scaling --checks
"""

import sys
from contextlib import redirect_stdout

from mmengine.config import Config

import mim_mm  # noqa: F401  (sets up compatibility before anything of mm* is built)
import mim_mm.interrupts  # noqa: F401  (Ctrl-C ends in one line)
from mim_mm.compat.paths import repo_root
from mim_mm.cost.command import Entry, answer, arguments
from mim_mm.transfer import ChainError, load_chain


def entries(path: str) -> list[Entry]:
    """The training stages of a chain, or the one recipe."""
    if not Config.fromfile(path).get('stages'):
        return [('recipe', Config.fromfile(path)._cfg_dict.to_dict(), path, None)]
    found = []
    for stage in load_chain(path).stages:
        if stage.config is not None:
            cfg = Config.fromfile(str(stage.config))
            cfg.merge_from_dict(stage.options)
            found.append((stage.name, cfg._cfg_dict.to_dict(), str(stage.config), stage.gpus))
    return found


def main() -> None:
    args = arguments(__doc__).parse_args()
    try:
        with redirect_stdout(sys.stderr):  # what is logged on the way, so that --json is JSON
            found = answer(entries(args.config), args, repo_root() / 'docs' / 'results')
        print(found)
    except (ValueError, FileNotFoundError, ChainError) as error:
        sys.exit(f'error: {error}')
    except (KeyError, TypeError) as error:
        sys.exit(f'error: {args.config} is no training recipe or chain that this understands: {error!r}')


if __name__ == '__main__':
    main()
