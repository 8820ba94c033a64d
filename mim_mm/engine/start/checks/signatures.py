"""The arguments that a class takes, those of its bases where ``**kwargs`` hands them on."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

import torch

_WITHOUT = (object, torch.nn.Module)  # the end of a line of constructors, and no argument is left for it


@dataclasses.dataclass(frozen=True)
class Arguments:
    """``known``: name -> parameter. ``open``: whatever else is given goes somewhere that cannot be followed."""

    known: dict[str, inspect.Parameter]
    open: bool
    required: tuple[str, ...]


@functools.cache
def arguments_of(kind: Callable) -> Arguments:
    """Of a class, or a function; positional-only ones and ``self`` are left out."""
    if not inspect.isclass(kind):
        return _of_function(kind)
    known: dict[str, inspect.Parameter] = {}
    required: tuple[str, ...] = ()
    is_open = False
    for owner in inspect.getmro(kind):
        init = vars(owner).get('__init__')
        if owner in _WITHOUT:
            break
        if init is None:
            continue
        try:
            parameters = list(inspect.signature(init).parameters.values())[1:]
        except (TypeError, ValueError):  # written in C
            return Arguments(known, True, ())
        named, rest = _sorted(parameters)
        if not known:
            required = tuple(name for name, p in named.items() if p.default is p.empty)
        known = {**named, **known}
        if rest is None:
            break
        handed = _handed_on(init, rest)
        if handed is None:
            is_open = True
            break
        known = {**{name: inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in handed}, **known}
    if '__init__' not in dir(kind) or kind.__init__ is object.__init__:
        return _of_function(kind)
    return Arguments(known, is_open, required)


def _of_function(kind: Callable) -> Arguments:
    try:
        parameters = list(inspect.signature(kind).parameters.values())
    except (TypeError, ValueError):
        return Arguments({}, True, ())
    named, rest = _sorted(parameters)
    return Arguments(named, rest is not None, ())


def _sorted(parameters: list[inspect.Parameter]) -> tuple[dict[str, inspect.Parameter], str | None]:
    rest = next((p.name for p in parameters if p.kind is p.VAR_KEYWORD), None)
    return {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}, rest


def _handed_on(init: Any, rest: str) -> set[str] | None:
    """The names that a constructor takes out of its ``**rest`` before the base gets it; None: it goes elsewhere too."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(init)))
    except (OSError, TypeError, SyntaxError):
        return None
    to_base, names, accounted = False, set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            for keyword in node.keywords:
                if keyword.arg is None and _is(keyword.value, rest) and _is_base_call(node.func):
                    to_base = True
                    accounted.add(id(keyword.value))
            taken = isinstance(node.func, ast.Attribute) and _is(node.func.value, rest)
            if taken and node.func.attr in ('pop', 'get', 'setdefault') and node.args:
                if not isinstance(node.args[0], ast.Constant):
                    return None
                names.add(node.args[0].value)
                accounted.add(id(node.func.value))
        elif isinstance(node, ast.Subscript) and _is(node.value, rest) and isinstance(node.slice, ast.Constant):
            names.add(node.slice.value)
            accounted.add(id(node.value))
        elif isinstance(node, ast.Compare) and isinstance(node.left, ast.Constant):
            for item in node.comparators:
                if _is(item, rest):
                    names.add(node.left.value)
                    accounted.add(id(item))
    used = {id(node) for node in ast.walk(tree) if _is(node, rest)}
    return names if to_base and used == accounted else None


def _is(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _is_base_call(func: ast.AST) -> bool:
    """``super().__init__`` or ``Base.__init__``."""
    return isinstance(func, ast.Attribute) and func.attr == '__init__'
