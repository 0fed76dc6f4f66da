"""Imports point one way, and what is imported at start stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "kinema"

# A module may import from its own layer and from those above it in this list.
LAYERS = [
    {"errors", "files", "__init__"},
    {"core"},
    {"data", "models", "viz"},
    {"protocols", "checkpoints", "inference", "complexity", "testing"},
    {"tasks", "callbacks"},
    {"launch", "composition", "fitting", "runs", "summary", "listing", "results"},
    {"modes"},
    {"cli", "__main__"},
]
# What only some rooms may touch; everything below is allowed for them and nobody else.
LIGHTNING = {"tasks", "callbacks", "modes", "composition"}
HYDRA = {"cli", "launch", "composition", "fitting", "modes", "runs", "summary", "listing", "results"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def _room(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def _layer(room: str) -> int:
    for i, rooms in enumerate(LAYERS):
        if room in rooms:
            return i
    raise AssertionError(f"{room} stands in no layer; add it to LAYERS")


def _imports(path: Path) -> set[str]:
    """Absolute names of every import in a file, those inside functions too, type-checking blocks left out."""
    found = set()
    tree = ast.parse(path.read_text())
    guarded = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in guarded:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    room = _room(path)
    for name in _imports(path):
        parts = name.split(".")
        if parts[0] == "kinema" and len(parts) > 1:
            target = parts[1]
            if (PACKAGE / target).is_dir() or (PACKAGE / f"{target}.py").is_file():
                assert _layer(target) <= _layer(room), f"{path.name} ({room}) imports {name}"
                if room in ("data", "models", "viz") and target in ("data", "models", "viz"):
                    assert target == room, f"{room} and {target} do not know each other: {path.name} imports {name}"
        if parts[0] in ("hydra", "omegaconf"):
            assert room in HYDRA, f"only {sorted(HYDRA)} import {parts[0]}: {path.name}"
        if parts[0] in ("lightning", "pytorch_lightning"):
            allowed = room in LIGHTNING or path.relative_to(PACKAGE).as_posix() == "data/base.py"
            assert allowed, f"only {sorted(LIGHTNING)} and data/base.py import Lightning: {path.name}"
        if room == "core":
            assert parts[0] in {"torch", "numpy", "kinema"} | set(sys.stdlib_module_names), f"{path.name}: {name}"


def test_importing_kinema_loads_nothing_heavy() -> None:
    script = "import sys, kinema; print([m for m in ('torch', 'lightning', 'hydra', 'numpy') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_command_line_is_light_until_composed() -> None:
    script = "import sys, kinema.cli; print([m for m in ('torch', 'lightning', 'matplotlib') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
