"""The wheel carries the configuration, so that `kinema` works after a plain install as in a clone."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=REPOSITORY, check=True, capture_output=True,
    )  # fmt: skip
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_every_configuration_and_data_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for path in (REPOSITORY / "conf").rglob("*.yaml"):
        assert f"kinema/conf/{path.relative_to(REPOSITORY / 'conf')}" in names
    for pattern in ("*.json", "*.cpp"):
        for path in (REPOSITORY / "src" / "kinema").rglob(pattern):
            assert f"kinema/{path.relative_to(REPOSITORY / 'src' / 'kinema')}" in names


def test_an_installed_kinema_runs_from_any_folder(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    script = (
        f"import sys; sys.path.insert(0, {str(site)!r}); import kinema.launch as l; "
        f"assert l.config_dir() == l.Path({str(site / 'kinema' / 'conf')!r}), l.config_dir(); "
        "sys.argv = ['kinema', 'mode=describe', 'model=videopose3d_small', 'describe.runs=1']; "
        "from kinema.cli import main; main()"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-P", "-c", script] if sys.version_info >= (3, 11) else [sys.executable, "-c", script],
        cwd=tmp_path, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "parameters: 566,067\n" in result.stdout
