"""mode=describe: exact parameters on a line of their own, counts with their rule, and no data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import kinema
from kinema.errors import ConfigError
from kinema.modes import describe
from tests.checkpoints import tiny


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """No broken lines in the table."""
    monkeypatch.setenv("COLUMNS", "200")


def described(tmp_path: Path, *overrides: str) -> dict[str, float]:
    config = kinema.compose(["mode=describe", "trainer=cpu", f"paths.output_dir={tmp_path}", *overrides])
    describe.run(config)
    return json.loads((tmp_path / "metrics.json").read_text())


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("poseformer", 9_602_885), ("videopose3d", 16_952_371), ("dstformer_lite model.num_frames=16", 16_001_549)],
)
def test_parameters_have_a_line_of_their_own(
    name: str, parameters: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = described(tmp_path, *f"model={name}".split(), "describe.runs=1")
    if "num_frames" in name:  # a shorter time embedding
        parameters -= (243 - 16) * 256
    lines = capsys.readouterr().out.splitlines()
    assert f"parameters: {parameters:,}" in lines
    assert found["describe/parameters"] == parameters
    assert f"multiply-accumulates: {int(found['describe/macs']):,}" in lines


def test_an_action_network_is_measured_in_clips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = described(tmp_path, "model=action_tiny", "model.backbone.depth=1", "describe.frames=9", "describe.runs=1")
    text = " ".join(capsys.readouterr().out.split())
    for words in ("pose (B, 2, T, 17, 3)", "logits (B, 60)", "per clip", "clips/s"):
        assert words in text, words
    assert "frames/s" not in text
    assert f"{int(found['describe/parameters']) - 195:,} of them trained" in text  # without the lifter's own head


def test_the_table_says_what_goes_in_and_what_it_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = described(tmp_path, "model=dstformer_tiny", "describe.batch_size=2", "describe.training=true")
    text = " ".join(capsys.readouterr().out.split())
    for words in (
        "DSTformer (dstformer)",
        "pose (B, T, 17, 3), T = 81 (up to so many)",
        "pose3d (B, T, 17, 3)",
        "the whole clip",
        "for 2 x 81 frames (linear",
        "attention products",
        "per output frame",
        "training step, time",
        "training step, peak memory",
    ):
        assert words in text, words
    assert found["describe/training_seconds"] > found["describe/forward_seconds"] > 0
    assert found["describe/training_peak_bytes"] > found["describe/forward_peak_bytes"] > 0
    assert found["_meta"]["batch_size"] == 2


def test_receptive_fields_and_streaming_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    described(tmp_path, "model=videopose3d", "model.filter_widths=[3,3]", "model.channels=8", "model.causal=true")
    text = " ".join(capsys.readouterr().out.split())
    assert "T = 9 (so many or more)" in text
    assert "9 frames: 8 before, 0 after" in text
    assert "pose3d (B, T - 8, 17, 3)" in text
    assert "per frame of a long video" in text


def test_a_graph_network_takes_any_number_of_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ("model.dim=6", "model.depth=2", "model.inflate_stages=[2]", "model.down_stages=null")
    described(tmp_path, "model=stgcnpp", *small, "describe.frames=7", "describe.runs=1")
    text = " ".join(capsys.readouterr().out.split())
    assert "pose (B, 2, T, 17, 3), T = 100 (or any other number)" in text
    assert "for 1 x 7 frames" in text


def test_a_checkpoint_is_described_by_what_it_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny.build("poseformer")
    path = tiny.save(tiny.lightning(model), tmp_path / "best.ckpt")
    described(tmp_path / "run", f"ckpt={path}", "describe.runs=1")
    lines = capsys.readouterr().out.splitlines()
    assert f"parameters: {sum(p.numel() for p in model.parameters()):,}" in lines


def test_impossible_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"describe\.batch_size=0"):
        described(tmp_path, "model=dstformer_tiny", "describe.batch_size=0")
    with pytest.raises(ConfigError, match=r"describe\.frames=27 does not suit .* 81 frames.*Use describe\.frames=81"):
        described(tmp_path, "model=poseformer", "describe.frames=27")


def test_another_length_is_counted(tmp_path: Path) -> None:
    whole = described(tmp_path / "a", "model=dstformer_tiny", "describe.runs=1")
    short = described(tmp_path / "b", "model=dstformer_tiny", "describe.runs=1", "describe.frames=9")
    assert short["describe/parameters"] == whole["describe/parameters"]
    assert short["describe/macs"] < whole["describe/macs"] / 9
    assert short["_meta"]["frames"] == 9


def test_mamba_models_show_both_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["model=dbmambapose_xs", "model.depth=1", "model.num_frames=3"]
    found = described(tmp_path, *sizes, "describe.runs=1")
    out = capsys.readouterr().out
    tokens, dim, inner = 3 * 17, 64, 128
    visible = tokens * (3 * dim + 2 * (dim * 2 * inner + 6 * dim**2) + dim * 512 + 512 * 3)
    hidden = tokens * 2 * (inner * dim + 2 * inner * (4 + (4 + 8) + 4 + 13))
    assert found["describe/visible_macs"] == visible
    assert found["describe/macs"] == visible + hidden
    assert f"visible multiply-accumulates: {visible:,}" in out.splitlines()
    assert "visible to profilers" in out and "scans; not norms" in out


def test_a_noise_predictor_shows_what_sampling_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = described(tmp_path, "model=smrnet_tiny", "describe.runs=1", "describe.training=true")
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for words in (
        "x (B, 20, 48), t (B,), condition (B, 20, 48) or none: 20 coefficients (exactly so many) of 48 features (16",
        "noise (B, 20, 48)",
        "for 1 x 20 coefficients",
        "without the condition",
        "one of 50 samples",
        "every matrix product",
        "samples/s",
    ):
        assert words in text, words
    assert "receptive field" not in text
    assert found["describe/macs"] > found["describe/unconditional_macs"] > found["describe/sampling_macs"] > 0
