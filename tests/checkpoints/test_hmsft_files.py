"""Files that the README of HMSFT offers as its own are PoseFormer V1's: they load as that, and a sentence says so."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

import kinema
from kinema.checkpoints.transfer import transfer
from kinema.errors import CheckpointError
from tests.checkpoints import tiny
from tests.e2e.running import TINY, in_process, metrics

SENTENCE = "holds PoseFormer V1 and is used as such: the README of HMSFT linked PoseFormer's weights"
DATA = [word for word in TINY if word.startswith(("dataset", "trainer"))]
DATA += ["dataset.reader_options.actions=[walk]", "~callbacks.figures"]


def write(folder: Path, name: str) -> torch.nn.Module:
    """A tiny PoseFormer V1 in the official layout."""
    model = tiny.build("poseformer", num_joints=17, num_frames=9, dim=8, num_heads=8)
    tiny.save(tiny.official(model), folder / name)
    return model


@pytest.mark.parametrize("name", ["cpn81f.bin", "gt81f.bin"])
def test_the_names_of_the_readme_load_as_poseformer_with_a_sentence(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    written = write(tmp_path, name)
    with caplog.at_level(logging.INFO, logger="kinema"):
        loaded = kinema.load(tmp_path / name)
    assert loaded.provenance.family == "poseformer"
    assert tiny.same_output(loaded, written)
    assert [record.getMessage() for record in caplog.records if SENTENCE in record.getMessage()] == [
        f"{tmp_path / name} {SENTENCE}, its own were never published."
    ]


def test_other_names_and_other_weights_are_loaded_in_silence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "detected81f.bin")
    tiny.save(tiny.official(tiny.build("videopose3d")), tmp_path / "cpn81f.bin")
    tiny.save(tiny.lightning(tiny.build("poseformer")), tmp_path / "gt81f.bin")
    for name in ("detected81f.bin", "cpn81f.bin", "gt81f.bin"):
        kinema.load(tmp_path / name)
    assert SENTENCE not in caplog.text


@pytest.mark.parametrize("name", ["cpn81f.bin", "my_hmsft.bin"])
def test_evaluating_them_as_hmsft_evaluates_poseformer_and_says_so_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, name)
    monkeypatch.chdir(tmp_path)
    in_process(*DATA, "mode=test", "model=hmsft", f"ckpt={name}", "hydra.run.dir=run", "dataset.subjects_test=[S9]")
    assert metrics(tmp_path / "run")["test/mpjpe"] > 0
    log = "".join(path.read_text() for path in (tmp_path / "run").glob("*.log"))
    assert log.count(SENTENCE) == 1
    assert "PoseFormer: " in log


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["model=hmsft", "model.joint_depth=3"],
            "holds a poseformer, which has no joint_depth. Drop model.joint_depth.",
        ),
        (["model=hmsft", "model.num_frames=81"], "was built with num_frames=9, not model.num_frames=81."),
        (["model=videopose3d"], "holds a poseformer but model=videopose3d was chosen."),
    ],
)
def test_what_contradicts_the_file_is_refused(
    words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "cpn81f.bin")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError, match="ended with code"):
        in_process(*DATA, "mode=test", "ckpt=cpn81f.bin", "hydra.run.dir=run", *words)
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_hmsft_does_not_start_from_them(tmp_path: Path) -> None:
    write(tmp_path, "cpn81f.bin")
    model = kinema.create("hmsft", num_frames=9, dim=8)
    with pytest.raises(CheckpointError, match=r"Nothing of .*cpn81f\.bin .* fits the model"):
        transfer(model, tmp_path / "cpn81f.bin")
