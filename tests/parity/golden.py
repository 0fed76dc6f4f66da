"""Walks the golden root: case folders by name prefix, and a record of what each check has read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
ROOT = Path(os.environ.get("KINEMA_GOLDEN") or REPOSITORY.parent / "shared" / "golden")
FIXTURES = REPOSITORY / "tests" / "fixtures" / "golden"


class Arrays:
    """The arrays of one npz file; remembers which were read."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        with np.load(path) as file:
            self._values = {key: file[key] for key in file.files}
        self.unread = set(self._values)

    def __getitem__(self, key: str) -> np.ndarray:
        self.unread.discard(key)
        return self._values[key]

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def names(self, prefix: str = "") -> list[str]:
        """Names beginning with a prefix, read or not."""
        return [key for key in self._values if key.startswith(prefix)]


class Case:
    """One golden folder. A test reads what it checks and ends with `finish()`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.topic = path.parent.name
        self._arrays: dict[str, Arrays] = {}
        self._used = {"README.md"}
        self._failures: list[str] = []

    def arrays(self, name: str = "case.npz") -> Arrays:
        if name not in self._arrays:
            self._arrays[name] = Arrays(self.file(name))
        return self._arrays[name]

    def file(self, name: str) -> Path:
        """Path of a file, counted as consumed."""
        self._used.add(name)
        return self.path / name

    def json(self, name: str = "config.json") -> Any:
        return json.loads(self.file(name).read_text())

    def sibling(self, name: str) -> Path:
        """Another folder of the same topic (weights, dataset); not counted here."""
        return self.path.parent / name

    @contextmanager
    def check(self, what: str) -> Iterator[None]:
        """Collect a failed comparison and go on with the others."""
        try:
            yield
        except AssertionError as error:
            self._failures.append(f"{what}: {str(error).strip()[:600]}")

    def close(self, what: str, found: Any, expected: Any, *, atol: float = 0.0, rtol: float = 0.0) -> None:
        """Compare two arrays (or tensors) inside a `check`; shapes must be equal."""
        with self.check(what):
            found = found.detach().cpu().numpy() if hasattr(found, "detach") else np.asarray(found)
            expected = np.asarray(expected)
            assert found.shape == expected.shape, f"shape {found.shape}, expected {expected.shape}"
            np.testing.assert_allclose(found, expected, atol=atol, rtol=rtol)

    def finish(self) -> None:
        """Fail on every collected difference, unread array and file that no check understood."""
        for arrays in self._arrays.values():
            if arrays.unread:
                self._failures.append(f"{arrays.name}: no check read {sorted(arrays.unread)}")
        files = {str(path.relative_to(self.path)) for path in self.path.rglob("*") if path.is_file()}
        if files - self._used:
            self._failures.append(f"files that no check understood: {sorted(files - self._used)}")
        if self._failures:
            pytest.fail(f"{self.topic}/{self.name}\n" + "\n".join(self._failures), pytrace=False)


def cases(topic: str, *prefixes: str) -> pytest.MarkDecorator:
    """Parametrise a test over every folder of a topic whose name begins with one of the prefixes.

    The small cases kept in the repository run as well, under ids that begin with "kept-".
    """
    params = []
    for mark, root in (("", ROOT), ("kept-", FIXTURES)):
        folders = sorted(path for path in (root / topic).glob("*") if path.is_dir() and path.name.startswith(prefixes))
        params += [pytest.param(path, id=f"{mark}{topic}/{path.name}") for path in folders]
    return pytest.mark.parametrize("case", params, indirect=True)
