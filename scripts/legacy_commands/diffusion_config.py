"""Yaml files of HumanMAC and SMRNet (cfg/*.yml): which recipe a file is, and what its keys become."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from scripts.legacy_commands.flags import TEST, TRAIN, Command, LegacyError
from scripts.legacy_commands.yaml_files import Key, load

HUMANMAC, SMRNET = "humanmac", "smrnet"
DATA = ("h36m", "humaneva")
# What the released files say and our recipes do not.
_RELEASED: dict[tuple[str, str], Mapping[str, Any]] = {(HUMANMAC, "humaneva"): {"mod_train": 1.0, "mod_test": 1.0}}
_PADDING = {"LastFrame": "last_frame", "Repeat": "repeat", "Zero": "zero"}
_SCHEDULES = ("Cosine", "Linear", "Sqrt", "Sigmoid")


@dataclass(frozen=True)
class MotionKey(Key):
    """One key of these files.

    Attributes:
        training: whether it matters for training only.
    """

    training: bool = False


def _padding(name: Any) -> str:
    if name not in _PADDING:
        raise LegacyError(f"padding: {name} in the yaml is none of {', '.join(_PADDING)}.")
    return _PADDING[name]


def _schedule(name: Any) -> str:
    if name not in _SCHEDULES:
        raise LegacyError(f"scheduler: {name} in the yaml is none of {', '.join(_SCHEDULES)}.")
    return str(name).lower()


_FILES = "is not needed: windows of the test set are grouped when it is read"
_UNREAD = "was read by nothing there and is left out"

KEYS = (
    MotionKey("dataset", here="`experiment=` of the system, for `h36m` or `humaneva`"),
    MotionKey("t_his", "dataset.history"),
    MotionKey("t_pred", "dataset.horizon"),
    MotionKey("batch_size", "dataset.batch_size", training=True),
    MotionKey("num_epoch", "trainer.max_epochs", training=True),
    MotionKey("num_data_sample", "dataset.windows_per_epoch", training=True),
    MotionKey(
        "num_val_data_sample",
        usual=5000,
        ignored="was the number of windows of a validation loss and is left out; see dataset.val_windows",
        training=True,
    ),
    MotionKey("lr", "task.optimizer.lr", training=True),
    MotionKey("n_pre", "model.kept_coeffs"),
    MotionKey("multimodal_path", usual=..., ignored=_FILES),
    MotionKey("data_candi_path", usual=..., ignored=_FILES),
    MotionKey("padding", "task.padding", value=_padding),
    MotionKey("Complete", "task.completion"),
    MotionKey("noise_steps", "task.noise_steps"),
    MotionKey("ddim_timesteps", "task.ddim_timesteps"),
    MotionKey("scheduler", "task.schedule", value=_schedule),
    MotionKey("num_layers", "model.depth"),
    MotionKey("num_heads", "model.num_heads"),
    MotionKey("latent_dims", "model.dim"),
    MotionKey("latent_dim", "model.dim"),
    MotionKey("dropout", "model.dropout", training=True),
    MotionKey("mod_train", "task.mod_train", training=True),
    MotionKey("mod_test", "task.mod_test"),
    MotionKey(
        "dct_norm_enable", only=False, why="No released network was trained so; task.coeff_scale divides coefficients."
    ),
    MotionKey("normalize_data", only=False, why="No released network was trained so."),
    MotionKey("model_type", usual=..., ignored=_UNREAD),
    MotionKey("mod_enable", usual=..., ignored=_UNREAD),
)
_BY_NAME = {key.name: key for key in KEYS}


@dataclass(frozen=True)
class Config:
    """A yaml file, read.

    Attributes:
        system: humanmac or smrnet.
        data: h36m or humaneva.
        values: its keys; of a released file that is not at hand, those that our recipe has otherwise.
    """

    system: str
    data: str
    values: Mapping[str, Any]

    @property
    def experiment(self) -> str:
        """Our recipe."""
        return f"{self.system}/{self.data}"

    def write(self, command: Command) -> None:
        """Set what the file says.

        Raises:
            LegacyError: a value has no counterpart.
        """
        training = command.mode == TRAIN
        for name, value in self.values.items():
            key = _BY_NAME[name]
            if training or not key.training:
                key.write(command, value)
        if command.mode in (TRAIN, TEST):
            self._write_variants(command)

    def _write_variants(self, command: Command) -> None:
        """The other share of samples with the condition is tested beside, and none twice."""
        share = self.values.get("mod_test")
        if share is None:
            return
        if self.data == "h36m":
            if share == 0.5:
                command.set("task.variants.half_conditioned", None)
        elif share == 1:
            command.set("task.variants.conditioned", None)
            command.set("task.variants.half_conditioned", {"mod_test": 0.5})
            command.note(
                "mod_test: 1.0 in the yaml: the published numbers of HumanEva-I mix samples that see the condition "
                "with samples that do not (mod_test 0.5, trained with mod_train 0.8), as the recipe "
                f"experiment={self.experiment} does. Here they are the row half_conditioned of the test."
            )


def read(text: str, system: str) -> Config:
    """Read a yaml file as the script finds it, or recognise a released one by its name where it is not at hand.

    Args:
        text: what follows --cfg: the name of a file in cfg/, or a path.
        system: whose script it was given to.

    Raises:
        LegacyError: for an unknown file or key.
    """
    for path in (Path("cfg", f"{text}.yml"), Path(text)):
        if path.is_file():
            values = load(path, _BY_NAME, "those of cfg/*.yml")
            data = values.get("dataset", "h36m")
            if data not in DATA:
                raise LegacyError(
                    f"dataset: {data} in {path} is none of {', '.join(DATA)}. Motion of your own: docs/own_data.md."
                )
            return Config(system, str(data), values)
    name = PureWindowsPath(text).stem
    if name not in DATA:
        raise LegacyError(
            f"--cfg {text}: there is no cfg/{text}.yml here, and the released ones are {', '.join(DATA)}."
        )
    return Config(system, name, _RELEASED.get((system, name), {}))
