"""The text of a config that a checkpoint carries, read as data: a config is a program, and a checkpoint runs none."""

from __future__ import annotations

import ast


def parse_config(text: str) -> dict:
    """``{name: value}`` of the text that mmengine writes for a config: literals and ``dict(...)``, given names.

    Raises:
        ValueError: anything else is in it, and what.
    """
    if not isinstance(text, str):
        raise ValueError(f'a {type(text).__name__} instead of text')
    try:
        found = {}
        for node in ast.parse(text).body:
            if not (isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)):
                raise _unread(node)
            found[node.targets[0].id] = _value(node.value)
        return found
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f'no text of a config ({type(error).__name__})') from error


def _value(node: ast.expr):
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name) and node.id in ('inf', 'nan'):  # as mmengine writes these numbers
        return float(node.id)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _value(node.operand)
        if type(value) in (int, float):
            return -value
    if isinstance(node, ast.List):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(item) for item in node.elts)
    if isinstance(node, ast.Set):
        return {_plain(item) for item in node.elts}
    if isinstance(node, ast.Dict) and None not in node.keys:
        return {_plain(key): _value(value) for key, value in zip(node.keys, node.values)}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id == 'dict' and not node.args and all(word.arg for word in node.keywords):
            return {word.arg: _value(word.value) for word in node.keywords}
        if node.func.id == 'set' and not node.args and not node.keywords:  # an empty one
            return set()
    raise _unread(node)


def _plain(node: ast.expr):
    value = _value(node)
    try:
        hash(value)
    except TypeError:
        raise _unread(node) from None
    return value


def _unread(node: ast.AST) -> ValueError:
    return ValueError(f'line {node.lineno} is no plain data: {ast.unparse(node)[:80]}')
