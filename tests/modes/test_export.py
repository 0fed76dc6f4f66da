"""mode=export: the file of a checkpoint in another form, with the difference printed."""

from __future__ import annotations

from pathlib import Path

import pytest

import kinema
from kinema.errors import CheckpointError, ConfigError
from kinema.modes import export
from tests.checkpoints import tiny


def exported(tmp_path: Path, *overrides: str) -> None:
    export.run(kinema.compose(["mode=export", f"paths.output_dir={tmp_path / 'run'}", *overrides]))


@pytest.mark.parametrize(("format", "suffix"), [("official", ".bin"), ("safetensors", ".safetensors")])
def test_the_file_lies_in_the_run_directory(
    format: str, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny.build("poseformer")
    path = tiny.save(tiny.lightning(model), tmp_path / "best.ckpt")
    exported(tmp_path, f"ckpt={path}", f"export.format={format}")
    written = tmp_path / "run" / f"best{suffix}"
    assert tiny.same_output(kinema.load(written, num_heads=2), model)
    assert "largest difference from the eager model 0.00e+00" in capsys.readouterr().out


def test_an_existing_output_is_kept_unless_asked(tmp_path: Path) -> None:
    path = tiny.save(tiny.lightning(tiny.build("videopose3d")), tmp_path / "best.ckpt")
    target = tmp_path / "mine.bin"
    target.write_bytes(b"precious")
    with pytest.raises(CheckpointError, match=r"export\.overwrite=true"):
        exported(tmp_path, f"ckpt={path}", f"export.output={target}")
    assert target.read_bytes() == b"precious"
    exported(tmp_path, f"ckpt={path}", f"export.output={target}", "export.overwrite=true")
    assert kinema.load(target).provenance.family == "videopose3d"


def test_nothing_to_export_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Use ckpt=path/to/file\."):
        exported(tmp_path)
    path = tiny.save(tiny.lightning(tiny.build("videopose3d")), tmp_path / "best.ckpt")
    with pytest.raises(ConfigError, match=r"export\.format=onx is unknown\. Use one of official, safetensors, onnx"):
        exported(tmp_path, f"ckpt={path}", "export.format=onx")
