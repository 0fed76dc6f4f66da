"""The configuration that mmcv's checkpoints carry as Python text, read without running it."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

_PLAIN = (str, int, float, bool, type(None))


def model_config(rest: Mapping[str, Any]) -> dict[str, Any] | None:
    """The `model` of the configuration in a checkpoint's `meta`; None where there is none that can be read.

    Args:
        rest: what a file holds beside its weights.
    """
    meta = rest.get("meta")
    text = meta.get("config") if isinstance(meta, Mapping) else None
    values = read_assignments(text) if isinstance(text, str) else {}
    model = values.get("model")
    return model if isinstance(model, dict) and isinstance(model.get("backbone"), dict) else None


def read_assignments(text: str) -> dict[str, Any]:
    """Values of the top-level assignments `name = value` in Python text.

    A value is a constant, a list, a tuple, a dict, `dict(key=value)`, or a name assigned before. Nothing is executed;
    an assignment of anything else is left out.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return {}
    known: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            try:
                known[node.targets[0].id] = _value(node.value, known)
            except (_Foreign, RecursionError):
                known.pop(node.targets[0].id, None)  # an older value is not what the text says any more
    return known


class _Foreign(Exception):
    """Text that is no plain value."""


def _value(node: ast.expr, known: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, _PLAIN):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _value(node.operand, known)
        if isinstance(value, (int, float)):
            return -value
    if isinstance(node, ast.Name) and node.id in known:
        return known[node.id]
    if isinstance(node, ast.List):
        return [_value(one, known) for one in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(one, known) for one in node.elts)
    if isinstance(node, ast.Dict) and all(isinstance(key, ast.Constant) for key in node.keys):
        return {
            _value(key, known): _value(one, known)
            for key, one in zip(node.keys, node.values, strict=True)
            if key is not None
        }
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
        return {word.arg: _value(word.value, known) for word in node.keywords if word.arg is not None}
    raise _Foreign
