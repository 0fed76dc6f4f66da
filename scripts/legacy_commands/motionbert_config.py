"""MotionBERT's yaml files: which recipe of ours a file is, and what its keys become."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from scripts.legacy_commands.flags import Command, LegacyError

# Files of MotionBERT's repository that train or evaluate 3D poses, by folder and name.
OFFICIAL = {
    "pose3d/MB_train_h36m": "motionbert/h36m",
    "pose3d/MB_ft_h36m": "motionbert/h36m_ft",
    "pose3d/MB_ft_h36m_global": "motionbert/h36m_global",
    "pose3d/MB_ft_h36m_global_lite": "motionbert/lite_global",
}
# And those for what does not exist here yet, by folder.
ABSENT = {
    "pretrain": "Pretraining (AMASS, PoseTrack, InstaVariety)",
    "action": "Action recognition",
    "mesh": "Mesh recovery",
}
_DEFAULT = "motionbert/h36m"
_FINETUNED = ("motionbert/h36m_ft", "motionbert/h36m_global", "motionbert/lite_global")


@dataclass(frozen=True)
class Key:
    """One key of a yaml file.

    Attributes:
        name: of the key.
        key: the override that takes its place; "" = see `here`.
        here: for the table in the docs, where `key` does not say it.
        value: from its value to the override's.
        only: the one value that is possible here; with another one the file is refused with `why`.
        ignored: sentence for a value other than `usual`, which changed nothing there or changes nothing here.
        usual: value in every published file.
    """

    name: str
    key: str = ""
    here: str = ""
    value: Callable[[Any], Any] | None = None
    only: Any = None
    why: str = ""
    ignored: str = ""
    usual: Any = None


def _target(rootrel: Any) -> str:
    return "root_relative" if rootrel else "first_frame_depth"


def _patterns(parts: Any) -> list[str] | None:
    return None if not parts else [f"*{part}*" for part in parts]


KEYS = (
    Key("train_2d", only=False, why="Training on 2D batches beside (PoseTrack, InstaVariety) is pretraining."),
    Key("no_eval", here="`trainer.limit_val_batches=0` (crashed there)"),
    Key("finetune", here="`init=DIR/FILE` of `--pretrained`, `--selection`"),
    Key("partial_train", "task.trainable", value=_patterns),
    Key("epochs", "trainer.max_epochs"),
    Key("checkpoint_frequency", here="`+callbacks.epochs...` where it is not 30"),
    Key("batch_size", "dataset.batch_size"),
    Key("dropout", usual=0, ignored="was never handed to the network there, whose dropout is 0, and is left out"),
    Key("learning_rate", "task.optimizer.lr"),
    Key("weight_decay", "task.optimizer.weight_decay"),
    Key("lr_decay", "task.scheduler.gamma"),
    Key("pretrain_3d_curriculum", ignored="matters only for pretraining and is left out"),
    Key("backbone", only="DSTformer", why="Of the networks that MotionBERT's loader names, its repository holds this."),
    Key("maxlen", "model.num_frames"),
    Key("dim_feat", "model.dim"),
    Key("mlp_ratio", "model.mlp_ratio"),
    Key("depth", "model.depth"),
    Key("dim_rep", "model.dim_rep"),
    Key("num_heads", "model.num_heads"),
    Key("att_fuse", usual=True, ignored="was never handed to the network there, which fused by attention; so it does"),
    Key("num_joints", only=17, why="MotionBERT's data has 17 joints."),
    Key("data_root", ignored="held the sliced clips; Kinema cuts them itself from dt_file", usual=...),
    Key("subset_list", only=["H36M-SH"], why="Other subsets (AMASS) belong to pretraining."),
    Key("dt_file", "dataset.reader_options.file"),
    Key("clip_len", here="`dataset.frames` where it is not `maxlen`"),
    Key("data_stride", here="`dataset.windows.stride` where it is not a third of a clip"),
    Key("sample_stride", "dataset.downsample"),
    Key("rootrel", "task.target", value=_target),
    Key("no_conf", here="`model.in_channels=2` (crashed there)"),
    Key(
        "gt_2d", here="`task.protocol_options.motionbert.gt_2d=true dataset.transforms=[{pose2d_from_target:{}},pose]`"
    ),
    Key("lambda_scale", "task.losses.n_mpjpe"),
    Key("lambda_3d_velocity", "task.losses.velocity"),
    Key("lambda_lv", "task.losses.limb_variance"),
    Key("lambda_lg", "task.losses.limb_length"),
    Key("lambda_a", "task.losses.angle"),
    Key("lambda_av", "task.losses.angle_velocity"),
    Key("synthetic", here="`dataset.augment`: `pose2d_from_target`"),
    Key("flip", here="`dataset.augment`: `flip`, and `task.flip_average`"),
    Key("noise", here="`dataset.augment`: `motionbert_noise`"),
    Key("mask_ratio", here="`dataset.augment`: `mask` (with mask_T_ratio, both above 0)"),
    Key("mask_T_ratio", here="`dataset.augment`: `mask`"),
    Key(
        "noise_path", usual="params/synthetic_noise.pth", ignored="is left out: Kinema ships the published noise model"
    ),
    Key(
        "d2c_params_path", usual="params/d2c_params.pkl", ignored="is left out: Kinema ships the published noise model"
    ),
)
_BY_NAME = {key.name: key for key in KEYS}


@dataclass(frozen=True)
class Config:
    """A yaml file, read.

    Attributes:
        experiment: our recipe that is nearest.
        values: its keys; empty where the file is one of the official ones and not at hand.
    """

    experiment: str
    values: Mapping[str, Any]

    @property
    def finetune(self) -> bool:
        """Whether training starts from pretrained weights."""
        return bool(self.values.get("finetune", self.experiment in _FINETUNED))

    @property
    def every(self) -> int | None:
        """Epochs between kept checkpoints, where it is not the published number."""
        found = self.values.get("checkpoint_frequency", 30)
        return None if found == 30 else int(found)

    @property
    def frames(self) -> int:
        """Longest clip of the network."""
        return int(self.values.get("maxlen", 243))

    def write(self, command: Command) -> None:
        """Set what the file says for training and evaluation."""
        # The scripts look for dt_file in this folder.
        command.set("dataset.root", "data/motion3d")
        for name, value in self.values.items():
            _write(command, _BY_NAME[name], value)
        if not self.values:
            return
        get = self.values.get
        clip, longest = get("clip_len", self.frames), self.frames
        command.set("dataset.frames", None if clip == longest else clip, typed=False)
        stride = get("data_stride", clip // 3)
        command.set("dataset.windows.stride", None if stride == clip // 3 else stride, typed=False)
        flips = bool(get("flip", True))
        command.set("task.flip_average", flips, typed=False)
        command.set("dataset.augment", _augment(self.values, flips), typed=False)
        if get("no_eval"):
            command.set("trainer.limit_val_batches", 0)
        if get("no_conf"):
            command.set("model.in_channels", 2)
        if get("gt_2d"):
            command.set("task.protocol_options.motionbert.gt_2d", True)
            command.set("dataset.transforms", [{"pose2d_from_target": {}}, "pose"])

    def write_prediction(self, command: Command) -> None:
        """Set what matters for keypoints of a video."""
        relative = self.values.get("rootrel", self.experiment in ("motionbert/h36m", "motionbert/h36m_ft"))
        command.set("task.target", _target(relative))
        command.set("task.flip_average", bool(self.values.get("flip", True)), typed=False)


def _augment(values: Mapping[str, Any], flips: bool) -> list[Any]:
    """Transforms for training, in the order of the script."""
    made: list[Any] = [{"pose2d_from_target": {}}] if values.get("synthetic") else []
    if flips:
        made.append({"flip": {"probability": 0.5}})
    if values.get("noise"):
        made.append({"motionbert_noise": {}})
    joints, frames = values.get("mask_ratio") or 0, values.get("mask_T_ratio") or 0
    if joints > 0 and frames > 0:
        made.append({"mask": {"joints": joints, "frames": frames}})
    return made


def _write(command: Command, key: Key, value: Any) -> None:
    if key.only is not None and value != key.only:
        raise LegacyError(f"{key.name}: {value} in the yaml has no counterpart in this version of Kinema. {key.why}")
    if key.ignored and key.usual is not ... and value != key.usual:
        command.note(f"{key.name}: {value} in the yaml {key.ignored}.")
    if key.key:
        command.set(key.key, value if key.value is None else key.value(value), typed=False)


def read(text: str) -> Config:
    """Read a yaml file, or recognise an official one by its name where it is not at hand.

    Raises:
        LegacyError: for a file of a task that does not exist here, an unknown file, an unknown key.
    """
    path = Path(text)
    parts = PureWindowsPath(text).with_suffix("").parts  # takes both slashes
    folder, stem = (parts[-2] if len(parts) > 1 else ""), parts[-1]
    if folder in ABSENT:
        raise LegacyError(
            f"--config {text}: {ABSENT[folder]} does not exist in this version of Kinema, whose tasks are lifting and "
            "lifting_semi."
        )
    name = next((one for one in OFFICIAL if one == f"{folder}/{stem}" or (not folder and one.endswith(f"/{stem}"))), "")
    if path.is_file():
        values = _values(path)
        return Config(OFFICIAL.get(name) or _nearest(values), values)
    if not name:
        known = ", ".join(f"configs/{one}.yaml" for one in OFFICIAL)
        raise LegacyError(f"--config {text} is no file here and none of MotionBERT's for 3D poses ({known}).")
    return Config(OFFICIAL[name], {})


def _nearest(values: Mapping[str, Any]) -> str:
    if values.get("rootrel") is False:
        return "motionbert/lite_global" if values.get("dim_feat") == 256 else "motionbert/h36m_global"
    return "motionbert/h36m_ft" if values.get("finetune") else _DEFAULT


def _values(path: Path) -> dict[str, Any]:
    """The keys of a yaml file, all of them known."""
    try:
        # OmegaConf's loader builds plain values only; nothing is resolved.
        found = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise LegacyError(f"--config {path} is no yaml file: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise LegacyError(f"--config {path} holds no keys with values.")
    for key in found:
        if key not in _BY_NAME:
            near = difflib.get_close_matches(str(key), _BY_NAME, n=1, cutoff=0.6)
            hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(_BY_NAME)}."
            raise LegacyError(f"--config {path}: the key {key!r} is none of MotionBERT's for 3D poses. {hint}")
    return {str(key): value for key, value in found.items()}
