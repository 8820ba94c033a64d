"""The function that every OpenMMLab package has under this name; ``mmengine.hub.get_model`` calls it."""

from mmengine.registry import DefaultScope

from mim_mm import registry


def register_all_modules(init_default_scope: bool = True) -> None:
    """Import whatever mim_mm registers; ``type='mim_mm.…'`` in a config does so without it.

    Args:
        init_default_scope: make ``mim_mm`` the default scope where there is none yet.
    """
    for value in list(vars(registry).values()):
        if isinstance(value, registry.Registry):
            value.import_from_location()
    if init_default_scope and DefaultScope.get_current_instance() is None:
        DefaultScope.get_instance('mim_mm', scope_name='mim_mm')
