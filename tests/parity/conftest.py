"""Golden cases for the parity tests: present, required (CI) or absent with one printed line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.parity.golden import ROOT, Case


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Case:
    """The golden folder of this parameter, with nothing read yet."""
    return Case(Path(request.param))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not ROOT.is_dir():
        terminalreporter.write_line(f"parity: no golden data at {ROOT}; only the small cases kept in tests/ were run.")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    wanted = os.environ.get("KINEMA_GOLDEN")
    if wanted and not ROOT.is_dir():
        raise pytest.UsageError(f"KINEMA_GOLDEN={wanted} is not a folder.")
