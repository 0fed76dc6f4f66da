"""mode=predict: 3D poses for a keypoint file (`input=`), or for the test sequences of a data set."""

from __future__ import annotations

import json
import logging
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from kinema import runs
from kinema.data.readers import keypoint_file
from kinema.data.sequences import Sequences
from kinema.data.windows import Windows
from kinema.errors import ConfigError
from kinema.modes.train import build

log = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Write `pose3d/<sequence>` (T, J, 3) float32 for every sequence into one npz, with what the numbers mean.

    Raises:
        ConfigError: without a checkpoint.
        DataError: for a keypoint file that does not fit.
    """
    with runs.recorded(config) as record:
        if not config.ckpt:
            raise ConfigError("mode=predict needs a trained network. Use ckpt=path/to/file.")
        _, data, task = build(config)
        output = Path(config.predict.output or record.folder / "predictions" / "predictions.npz")
        if output.suffix != ".npz":
            raise ConfigError(
                f"predict.output={output} must end in .npz. Use predict.output={output.with_suffix('.npz')}."
            )
        sequences = _from_file(config, data, task) if config.input else data.windows("predict").sequences
        windows = Windows.whole(sequences, context=task.model.signature.context, keys=("pose2d",))
        _write(output, windows, data, task)
        log.info("wrote %s: %d sequences, %d frames", output, len(sequences), sequences.num_frames)


def _from_file(config: DictConfig, data: Any, task: Any) -> Sequences:
    options = config.predict
    return keypoint_file.read(
        Path(config.input),
        layout=options.layout,
        skeleton2d=data.spec.skeleton2d,
        preprocessing=data.spec.preprocess,
        width=options.width,
        height=options.height,
        track=options.track,
        fps=data.spec.fps,
    )


def _write(output: Path, windows: Windows, data: Any, task: Any) -> None:
    """Predict sequence by sequence into the archive: memory does not grow with their number."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    task.model.to(device).eval()
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.writing")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive, torch.inference_mode():
        for row in range(len(windows)):
            batch = data.transform(windows[torch.tensor([[0, row, row]])])
            pose = task.predict({key: value.to(device) for key, value in batch.items()})
            name = windows.sequences.label(row).replace(" ", "_")
            with archive.open(f"pose3d/{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, pose[0].float().cpu().numpy(), allow_pickle=False)
        with archive.open("meta.npy", "w") as file:
            np.lib.format.write_array(file, np.asarray(json.dumps(_meaning(data, task))), allow_pickle=False)
    temporary.replace(output)


def _meaning(data: Any, task: Any) -> dict[str, Any]:
    """Unit, axes and joints of the predictions, because numbers alone have misled many."""
    image = data.spec.space == "image"
    return {
        "unit": "half image widths (2.5D, depth relative to the root)" if image else "metres",
        "axes": "camera: x right, y down, z away from the camera",
        "origin": "root joint of each frame" if task.target == "root_relative" else task.target,
        "joints": list(data.spec.skeleton.joints),
        "fps": data.spec.fps,
    }
