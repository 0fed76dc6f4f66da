"""A causal VideoPose3D from training to a live stream: no frame behind the one that is lifted is ever looked at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kinema.checkpoints.load import load
from kinema.composition import build_data, compose, make
from kinema.inference.slide import pad_edges, slide
from kinema.inference.stream import stream
from kinema.modes import test, train
from tests.e2e import running

_DATA = ["dataset=synthetic", "dataset.reader_options.frames=60", "dataset.reader_options.actions=[walk,kick]"]
_SMALL = [
    "experiment=videopose3d/h36m_causal_243", *_DATA, "model.filter_widths=[3,5]", "model.channels=16",
    "dataset.batch_size=256", "trainer=cpu", "trainer.max_epochs=2", "~callbacks.figures",
]  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("causal")
    train.run(compose([*_SMALL, f"paths.output_dir={home / 'run'}", f"paths.cache_dir={home / 'cache'}"]))
    (path,) = (home / "run").rglob("best.ckpt")
    return path


def test_training_windows_end_with_their_target() -> None:
    config = compose([*_SMALL, "dataset.cache_dir=null"])
    model = make(config.model)
    assert model.signature.context == (14, 0)
    data = build_data(config, model.signature)
    windows = data.windows("train")
    batch = windows[torch.tensor([[0, 0, 20], [0, 1, 70]])]  # the second one is mirrored
    assert batch["pose2d"].shape[1] == 15
    sequence = windows.sequences.sequence(0)
    np.testing.assert_array_equal(batch["pose2d"][0], sequence["pose2d"][6:21])
    np.testing.assert_array_equal(batch["pose3d"][0], sequence["pose3d"][20:21])


def test_what_it_measures_streams_and_lifts_are_one(checkpoint: Path, tmp_path: Path) -> None:
    words = ["mode=test", *_DATA, f"ckpt={checkpoint}", "trainer=cpu", "~callbacks.figures"]
    value = test.run(compose([*words, f"paths.output_dir={tmp_path / 'run'}"]))
    measured = running.metrics(next(p for p in checkpoint.parents if p.name == "run"))["test/mpjpe"]
    assert value == pytest.approx(measured, rel=1e-4)

    model = load(checkpoint)
    assert model.causal and model.signature.context == (14, 0), "Kinema's own files tell that a network is causal"
    pose = torch.rand(1, 40, 17, 2, generator=torch.Generator().manual_seed(0)) - 0.5
    whole = slide(model, pad_edges(pose, model.signature.context))
    live = stream(model)
    assert live.latency == 0
    torch.testing.assert_close(torch.stack([live.push(frame) for frame in pose[0]]), whole[0], atol=1e-5, rtol=1e-4)
    later = pose.clone()
    later[:, 25:] = 9
    changed = slide(model, pad_edges(later, model.signature.context))
    assert torch.equal(changed[:, :25], whole[:, :25]), "what comes later changes nothing"
    assert not torch.equal(changed[:, 25], whole[:, 25])
