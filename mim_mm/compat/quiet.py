"""Silences the messages of upstream that are false or that no user can act on: these, and nothing else.

* 'Could not import OneDL': mmdet looks for a commercial data service at import and prints that it is not there (its
  own level for it is DEBUG, which is not looked at where there is no logger yet).
* 'faster_coco_eval is not installed': mmdet's metric of that name; COCO metrics here use pycocotools.
* 'Using env variable': once for each variable and value, not for every config of a chain that names it.
* '"FileClient" will be deprecated' and the same of the backend it makes: mmengine warns of its own hooks' use of it.
"""

import functools
import warnings

from mim_mm.compat.on_import import after_import

MESSAGES = (
    'Could not import OneDL',
    '"FileClient" will be deprecated in future',
    '"HardDiskBackend" is the alias of "LocalBackend" and the former will be deprecated',
)
ONCE = ('Using env variable',)
_said = set()
WARNINGS = ('faster_coco_eval is not installed',)
# those that took ``print_log`` from mmengine.logging before we could, if mmengine was imported first
HOLDERS = ('mmengine.logging', 'mmengine.fileio.file_client', 'mmengine.config.config')


def _filter(module):
    print_log = module.print_log
    if getattr(print_log, 'leaves_out', None) is MESSAGES:
        return

    @functools.wraps(print_log)
    def filtered(msg, *args, **kwargs):
        if isinstance(msg, str):
            if msg.startswith(MESSAGES) or msg in _said:
                return
            if msg.startswith(ONCE):
                _said.add(msg)
        print_log(msg, *args, **kwargs)

    filtered.leaves_out = MESSAGES
    module.print_log = filtered


def install():
    """Silence them, before or after mmengine is imported."""
    for message in WARNINGS:
        warnings.filterwarnings('ignore', message=message, category=UserWarning)
    for name in HOLDERS:
        after_import(name, _filter)
