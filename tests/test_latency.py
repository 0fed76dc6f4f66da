"""scripts/latency.py: its numbers are those of streams, its files say how they were made."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scripts import latency

from kinema.checkpoints.load import record_of
from kinema.composition import compose, plain
from kinema.core.align import root_relative
from kinema.core.pose_errors import mpjpe
from kinema.core.skeleton import skeleton
from kinema.errors import ConfigError
from kinema.inference.stream import stream
from kinema.models.dbmambapose import DBMambaPose
from kinema.modes.train import build
from tests.checkpoints import tiny

DATA = [
    "dataset=synthetic", "dataset.reader_options.frames=14", "dataset.reader_options.actions=[walk,wave]",
    "dataset.cache_dir=null", "trainer=cpu",
]  # fmt: skip
BODY = skeleton("h36m17")


def mamba(mixer: str) -> DBMambaPose:
    torch.manual_seed(0)
    return DBMambaPose(
        num_frames=5, num_joints=17, in_channels=2, dim=4, dim_rep=6, depth=1, d_state=2, d_conv=3, expand=2,
        mlp_ratio=2, dropout=0.0, drop_path=0.0, layer_scale=None, mixer=mixer, divide=True, streams="single",
        limbs=False, scan_backend="reference",
    ).eval()  # fmt: skip


def checkpoint(folder: Path, model: Any, *overrides: str) -> Path:
    config = plain(compose([*DATA, *overrides]))
    content = {"state_dict": {f"model.{name}": value for name, value in model.state_dict().items()}}
    content["kinema"] = record_of(model, task="lifting", config=config)
    (folder / "checkpoints").mkdir(parents=True)
    return tiny.save(content, folder / "checkpoints" / "best.ckpt")


def measured(tmp_path: Path, *words: str) -> list[dict[str, str]]:
    latency.main([*words, "--output", str(tmp_path / "out" / "latency")])
    with (tmp_path / "out" / "latency.csv").open() as file:
        return list(csv.DictReader(file))


def by_hand(path: Path, look_ahead: int | None, flip: bool) -> tuple[float, float]:
    """MPJPE in mm over actions and over frames of one stream per sequence."""
    config = compose([*DATA, f"ckpt={path}"])
    model, data, _ = build(config)
    sequences = data.windows("test").sequences
    errors: dict[str, list[np.ndarray]] = {}
    for row in range(len(sequences)):
        arrays = sequences.sequence(row)
        made = stream(model, look_ahead=look_ahead, flip=(BODY, BODY) if flip else None)
        out = [made.push(frame[:, :2]) for frame in arrays["pose2d"]]
        poses = torch.cat([*(one[None] for one in out if one is not None), made.flush()])
        truth = root_relative(torch.from_numpy(np.array(arrays["pose3d"])), BODY)
        errors.setdefault(str(sequences.table["action"][row]), []).append(1000 * mpjpe(poses, truth).numpy())
    every = {action: np.concatenate(parts) for action, parts in errors.items()}
    return float(np.mean([part.mean() for part in every.values()])), float(np.concatenate([*every.values()]).mean())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["poseformer", "videopose3d", "dbmambapose"])
def test_the_numbers_are_those_of_streams(tmp_path: Path, name: str) -> None:
    sizes: dict[str, Any] = {"num_joints": 17} | ({"num_joints_out": 17} if name == "videopose3d" else {})
    model = mamba("v2") if name == "dbmambapose" else tiny.build(name, **sizes)
    path = checkpoint(tmp_path / "run", model)
    rows = measured(tmp_path, "--ckpt", f"mine={tmp_path / 'run'}")
    most = 4 if name == "dbmambapose" else model.signature.context[1]
    looks = [look for look in (0, 1, 2, 4) if look <= most]
    assert [row["look_ahead"] for row in rows] == [*(str(look) for look in looks), ""]
    assert {row["network"] for row in rows} == {"mine"}
    for row, look in zip(rows, looks, strict=False):
        expected = by_hand(path, look, flip=True)
        assert (float(row["mpjpe"]), float(row["mpjpe_frames"])) == pytest.approx(expected, rel=1e-4)
    if name != "dbmambapose":  # a window that waits for all its frames is offline
        assert float(rows[-2]["mpjpe"]) == pytest.approx(float(rows[-1]["mpjpe"]), rel=1e-5)


def test_a_causal_network_is_one_point_beside_the_curve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    causal = checkpoint(tmp_path / "causal", mamba("official"), "task.flip_average=false")
    checkpoint(tmp_path / "both", mamba("v2"))
    rows = measured(
        tmp_path, "--ckpt", str(tmp_path / "causal"), "--ckpt", f"both={tmp_path / 'both'}", "--frames", "30",
        "--look-ahead", "0", "2", "--threads", "1",
    )  # fmt: skip
    assert [(row["network"], row["way"], row["look_ahead"]) for row in rows] == [
        ("dbmambapose", "causal", "0"), ("dbmambapose", "window", "0"),
        ("both", "window", "0"), ("both", "window", "2"), ("both", "window", "4"), ("both", "offline", ""),
    ]  # fmt: skip
    text = (tmp_path / "out" / "latency.md").read_text()
    assert "30 of 224 test frames (evenly spaced), mirrored poses averaged in" in text
    assert "| both | offline | whole video |" in text and "![Error against look-ahead](latency.png)" in text
    assert "30 of 224" in capsys.readouterr().out
    with Image.open(tmp_path / "out" / "latency.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("L")))) > 20, "an empty picture has few shades"
    everything = measured(tmp_path, "--ckpt", str(tmp_path / "causal"), "--look-ahead", "0")
    expected = by_hand(causal, None, flip=False)
    assert (float(everything[0]["mpjpe"]), float(everything[0]["mpjpe_frames"])) == pytest.approx(expected, rel=1e-4)


def test_overrides_change_the_recorded_data(tmp_path: Path) -> None:
    checkpoint(tmp_path / "run", mamba("v2"))
    rows = measured(tmp_path, "--ckpt", str(tmp_path / "run"), "dataset.reader_options.frames=6")
    assert rows[-1]["way"] == "offline"
    assert "of 96 test frames" in (tmp_path / "out" / "latency.md").read_text()


def test_a_file_without_its_configuration_is_refused(tmp_path: Path) -> None:
    path = tiny.save(tiny.official(tiny.build("videopose3d", num_joints=17, num_joints_out=17)), tmp_path / "m.bin")
    with pytest.raises(ConfigError, match="does not tell its data"):
        latency.main(["--ckpt", str(path)])
