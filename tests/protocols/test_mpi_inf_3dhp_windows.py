"""PoseFormer V2 on MPI-INF-3DHP by its recipe: training windows, and the published test as a plain loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from torch import nn

from kinema.composition import build_data, build_task, compose, make
from kinema.data.readers.mpi_inf_3dhp import SIZE, SIZES
from kinema.errors import ConfigError
from tests.data import mpi_layout
from tests.models import oracle
from tests.parity.test_protocols import trainer_for

LEFT, RIGHT, ROOT = [5, 6, 7, 11, 12, 13], [2, 3, 4, 8, 9, 10], 14
FRAMES = 9


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    made = mpi_layout.contents(frames=14)
    return mpi_layout.save(tmp_path_factory.mktemp("mpi"), made), made


def composed(root: Path, *words: str) -> DictConfig:
    return compose(
        [
            "experiment=poseformerv2/mpi_inf_3dhp", f"dataset.root={root}", "dataset.cache_dir=null",
            f"model.num_frames={FRAMES}", "model.kept_frames=3", "model.kept_coeffs=3", "model.dim=4", "model.depth=1",
            "model.num_heads=2", *words,
        ]
    )  # fmt: skip


def network(config: DictConfig) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = make(config.model)
        oracle.scatter(model, 0.1)
    return model.eval()


@torch.no_grad()
def published(model: nn.Module, test: dict[str, Any], unit: str) -> dict[str, float]:
    """run_3dhp.py as the notes tell it: a padded window around every valid frame, flips averaged, the root zero."""
    errors = []
    for name, views in test.items():
        width, height = SIZES.get(name, SIZE)
        flat = views["data_2d"] / width * 2 - np.array([1, height / width])
        solid = views["data_3d"] - views["data_3d"][:, ROOT : ROOT + 1]
        for frame in np.flatnonzero(views["valid"]):
            window = [flat[min(max(frame + k, 0), len(flat) - 1)] for k in range(-(FRAMES // 2), FRAMES // 2 + 1)]
            pose = torch.tensor(np.stack(window), dtype=torch.float32)[None]
            mirror = pose * torch.tensor([-1.0, 1.0])
            mirror[:, :, LEFT + RIGHT] = mirror[:, :, RIGHT + LEFT]
            back = model(mirror) * torch.tensor([-1.0, 1.0, 1.0])
            back[:, :, LEFT + RIGHT] = back[:, :, RIGHT + LEFT]
            found = ((model(pose) + back) / 2)[0, 0].double().numpy() * (1 if unit == "mm" else width / 2)
            found[ROOT] = 0
            errors.append(np.linalg.norm(found - solid[frame], axis=-1))
    judged = np.array(errors)[:, [joint for joint in range(17) if joint < 14]]
    shares = [(judged < 5 * step).mean() * 100 for step in range(31)]
    return {"mpjpe": np.mean(errors), "pck": (judged < 150).mean() * 100, "auc": np.mean(shares)}


def scores(config: DictConfig, model: nn.Module) -> dict[str, float]:
    data, task = build_data(config, model.signature), build_task(config, model)  # type: ignore[arg-type]
    trainer_for().test(task, datamodule=data, verbose=False)
    scalars = task.reports["test"].scalars
    return {name: scalars[name] for name in ("mpjpe", "pck", "auc")}


@pytest.mark.parametrize("unit", ["image", "mm"])
def test_the_published_test_is_met_frame_by_frame_and_by_whole_sequences(
    unit: str, files: tuple[Path, dict[str, Any]]
) -> None:
    root, made = files
    word = f"task.protocol_options.mpi_inf_3dhp.unit={unit}"
    config = composed(root, word)
    model = network(config)
    if unit == "mm":  # errors of a size that PCK can tell apart
        with torch.no_grad():
            for parameter in model.head[1].parameters():  # type: ignore[index, union-attr]
                parameter *= 100
    expected = published(model, made[mpi_layout.TEST], unit)
    assert expected["mpjpe"] > 50
    assert scores(config, model) == pytest.approx(expected, abs=2e-3)
    centred = composed(root, word, "dataset.eval_windows.kind=centred", "dataset.eval_batch_size=5")
    assert scores(centred, model) == pytest.approx(expected, abs=2e-3)


def test_training_windows_are_one_per_frame_and_mirror(files: tuple[Path, dict[str, Any]]) -> None:
    root, made = files
    config = composed(root)
    data = build_data(config, network(config).signature)  # type: ignore[arg-type]
    windows = data.windows("train")
    frames = sum(len(views["data_2d"]) for cameras, _ in made[mpi_layout.TRAIN].values() for views in cameras.values())
    assert len(windows) == 2 * frames
    batch = windows[torch.tensor([[0, 0, 0], [0, 1, len(windows) - 1]])]
    assert batch["pose2d"].shape[:2] == (2, FRAMES)
    assert batch["pose3d"].shape[1] == 1
    assert batch["flip"].tolist() == [False, True]
    assert (config.task.optimizer.lr, config.task.scheduler.gamma, config.trainer.max_epochs) == (7e-4, 0.97, 79)
    assert config.task.optimizer.amsgrad and config.task.optimizer["_target_"] == "torch.optim.Adam"


def test_another_unit_is_refused_with_both(files: tuple[Path, dict[str, Any]]) -> None:
    config = composed(files[0], "task.protocol_options.mpi_inf_3dhp.unit=m")
    with pytest.raises(ConfigError, match=r"unit=image .* unit=mm"):
        scores(config, network(config))
