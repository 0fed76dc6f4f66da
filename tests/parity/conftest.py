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


def _topics() -> list[Path]:
    """Topics of the golden root that some test here walks."""
    return [
        ROOT / topic
        for topic in ("motionbert", "poseformer", "mamba", "action", "diffusion")
        if (ROOT / topic).is_dir()
    ]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _topics():
        terminalreporter.write_line(
            f"parity skipped: no golden data at {ROOT}; only the small cases kept in tests/ were run."
        )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = os.environ.get("KINEMA_GOLDEN")
    if wanted and not ROOT.is_dir():
        raise pytest.UsageError(f"KINEMA_GOLDEN={wanted} is not a folder.")
    # Kinds of case that this root does not hold would be one skip each; the line at the end says it once.
    absent = [item for item in items if item.get_closest_marker("parity") and item.name.endswith("[NOTSET]")]
    if absent:
        items[:] = [item for item in items if item not in absent]
        config.hook.pytest_deselected(items=absent)
