"""Starts `run.py` as a user would: in this process where possible, as a subprocess where signals or ranks matter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kinema import cli

REPOSITORY = Path(__file__).resolve().parents[2]

# A run of seconds: few short sequences, a small network, a handful of steps.
TINY = [
    "dataset=synthetic",
    "dataset.reader_options.takes=1",
    "dataset.reader_options.frames=48",
    "model=dstformer_tiny",
    "model.num_frames=16",
    "model.dim=16",
    "model.dim_rep=16",
    "model.depth=1",
    "model.num_heads=2",
    "trainer=cpu",
    "trainer.max_epochs=2",
]


def run(
    *words: str, cwd: Path, env: dict[str, str] | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run `python run.py WORDS` in a folder and return what it printed."""
    result = subprocess.run(
        [sys.executable, str(REPOSITORY / "run.py"), *words],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "160", **(env or {})},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=600,
    )
    if check and result.returncode != 0:
        raise AssertionError(f"exit {result.returncode}\n{result.stdout[-4000:]}\n{result.stderr[-6000:]}")
    return result


def in_process(*words: str) -> None:
    """Run `run.py WORDS` in the current folder and this process; fails unless it ends well."""
    before, environment = sys.argv, dict(os.environ)
    sys.argv = ["run.py", *words]
    try:
        cli.main()
    except SystemExit as error:
        assert not error.code, f"{' '.join(words)} ended with code {error.code}"
    finally:
        sys.argv = before
        os.environ.clear()
        os.environ.update(environment)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run a command that must end with code 2 and one sentence; returns the sentence. No checkpoint was left behind."""
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["run.py", *words, "hydra.run.dir=out"])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    told = capsys.readouterr().err
    assert stopped.value.code == 2, told
    assert "Traceback" not in told
    assert not list(Path("out").rglob("*.ckpt"))
    (sentence,) = (line for line in told.splitlines() if line.startswith("error: "))
    return sentence.removeprefix("error: ")


def metrics(folder: Path) -> dict[str, Any]:
    """`metrics.json` of a run directory without its `_meta`."""
    values = json.loads((folder / "metrics.json").read_text())
    values.pop("_meta")
    return values
