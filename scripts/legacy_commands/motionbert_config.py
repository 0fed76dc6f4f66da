"""MotionBERT's yaml files for 3D poses: which recipe of ours a file is, and what its keys become."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.legacy_commands.flags import Command, LegacyError
from scripts.legacy_commands.yaml_files import Key, folder_and_name, load, official

# Files of MotionBERT's repository that train or evaluate 3D poses, by folder and name.
OFFICIAL = {
    "pose3d/MB_train_h36m": "motionbert/h36m",
    "pose3d/MB_ft_h36m": "motionbert/h36m_ft",
    "pose3d/MB_ft_h36m_global": "motionbert/h36m_global",
    "pose3d/MB_ft_h36m_global_lite": "motionbert/lite_global",
}
# And those for what does not exist here yet, by folder.
ABSENT = {"pretrain": "Pretraining (AMASS, PoseTrack, InstaVariety)", "mesh": "Mesh recovery"}
_WHAT = "MotionBERT's for 3D poses"
_DEFAULT = "motionbert/h36m"
_FINETUNED = ("motionbert/h36m_ft", "motionbert/h36m_global", "motionbert/lite_global")


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
            _BY_NAME[name].write(command, value)
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


def read(text: str) -> Config:
    """Read a yaml file, or recognise an official one by its name where it is not at hand.

    Raises:
        LegacyError: for a file of a task that does not exist here, an unknown file, an unknown key.
    """
    path = Path(text)
    folder, _ = folder_and_name(text)
    if folder in ABSENT:
        raise LegacyError(
            f"--config {text}: {ABSENT[folder]} does not exist in this version of Kinema, whose tasks are lifting, "
            "lifting_semi, action and prediction."
        )
    if folder == "action":
        raise LegacyError(
            f"--config {text} is for actions, which train_action.py and train_action_1shot.py train, not train.py."
        )
    name = official(text, OFFICIAL)
    if path.is_file():
        values = load(path, _BY_NAME, _WHAT)
        return Config(OFFICIAL.get(name) or _nearest(values), values)
    if not name:
        known = ", ".join(f"configs/{one}.yaml" for one in OFFICIAL)
        raise LegacyError(f"--config {text} is no file here and none of MotionBERT's for 3D poses ({known}).")
    return Config(OFFICIAL[name], {})


def _nearest(values: Mapping[str, Any]) -> str:
    if values.get("rootrel") is False:
        return "motionbert/lite_global" if values.get("dim_feat") == 256 else "motionbert/h36m_global"
    return "motionbert/h36m_ft" if values.get("finetune") else _DEFAULT
