"""Yaml files of the action scripts, MotionBERT's and the MA-52 fork's: which recipe a file is, what its keys become."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.legacy_commands.flags import TRAIN, Command, LegacyError
from scripts.legacy_commands.yaml_files import Key, load, official

CLASSES, ONESHOT, FORK = "train_action.py", "train_action_1shot.py", "train_action_custom.py"
# Files of the two repositories by script, as folder and name.
OFFICIAL = {
    CLASSES: {
        "action/MB_train_NTU60_xsub": "motionbert/ntu60_xsub_scratch",
        "action/MB_train_NTU60_xview": "motionbert/ntu60_xview_scratch",
        "action/MB_ft_NTU60_xsub": "motionbert/ntu60_xsub_ft",
        "action/MB_ft_NTU60_xview": "motionbert/ntu60_xview_ft",
    },
    ONESHOT: {
        "action/MB_train_NTU120_oneshot": "motionbert/ntu120_oneshot_scratch",
        "action/MB_ft_NTU120_oneshot": "motionbert/ntu120_oneshot_ft",
    },
    FORK: {"action/MB_train_custom": "ma52/fork"},
}
# Head of each script's networks, and the folder in which it looks for its data.
_VERSION = {CLASSES: "class", ONESHOT: "embed", FORK: "class"}
_ROOT = {CLASSES: "data/action", ONESHOT: "data/action", FORK: "data"}
_WIDTH = 2048  # of every class head, whatever hidden_dim says
# Recipes without groups of parameters.
_ONE_RATE = ("motionbert/ntu60_xsub_scratch", "motionbert/ntu60_xview_scratch")
_JOINTS = "All of these data sets have 17 joints."


@dataclass(frozen=True)
class ActionKey(Key):
    """One key of these files.

    Attributes:
        scripts: those that read it; () = all.
        training: whether it matters for training only.
    """

    scripts: tuple[str, ...] = ()
    training: bool = False


KEYS = (
    ActionKey("finetune", here="the recipe, and `init=DIR/FILE` of `--pretrained`"),
    ActionKey("partial_train", here="`task.trainable=[head.*,backbone.*PART*]` (with `finetune: True`)", training=True),
    ActionKey("epochs", "trainer.max_epochs", training=True),
    ActionKey("batch_size", "dataset.batch_size", training=True),
    ActionKey("lr_backbone", here="`task.optimizer.lr`; of ma52/fork `task.parameter_groups={backbone.*:{lr:...}}`"),
    ActionKey("lr_head", here="`task.parameter_groups={head.*:{lr:...}}`; of ma52/fork `task.optimizer.lr`"),
    ActionKey("weight_decay", "task.optimizer.weight_decay", training=True),
    ActionKey("lr_decay", "task.scheduler.gamma", training=True),
    ActionKey("temp", "task.temperature", scripts=(ONESHOT,), training=True),
    ActionKey("n_views", "dataset.order_options.per_class.per_class", scripts=(ONESHOT,), training=True),
    ActionKey("backbone", only="DSTformer", why="Of the networks that the loader names, the repository holds this."),
    ActionKey("model_version", here="`class` for train_action.py and the fork, `embed` for train_action_1shot.py"),
    ActionKey("maxlen", "model.backbone.num_frames"),
    ActionKey("dim_feat", "model.backbone.dim"),
    ActionKey("mlp_ratio", "model.backbone.mlp_ratio"),
    ActionKey("depth", "model.backbone.depth"),
    ActionKey("dim_rep", "model.backbone.dim_rep"),
    ActionKey("num_heads", "model.backbone.num_heads"),
    ActionKey("att_fuse", usual=True, ignored="was never handed to the network, which fused by attention; so it does"),
    ActionKey("num_joints", only=17, why=_JOINTS),
    ActionKey("hidden_dim", here="`model.hidden` of `embed`; a `class` head was 2048 wide whatever stood here, and is"),
    ActionKey("dropout_ratio", "model.dropout"),
    ActionKey("dataset", here="`ntu60_hrnet`: as the recipe; `ntu120_hrnet`: `dataset=ntu120`, made compat"),
    ActionKey("data_split", here="`dataset.protocol`: xsub, xview, xset"),
    ActionKey("clip_len", "dataset.frames"),
    ActionKey("action_classes", here="`dataset.num_classes`, and class names where it is not the data set's number"),
    ActionKey("data_root", "dataset.root", scripts=(FORK,)),
    ActionKey("random_move", here="False: `dataset.augment=[]`", training=True),
    ActionKey("scale_range_train", here="`dataset.transforms`: `crop_scale`"),
    ActionKey("scale_range_test", here="`dataset.transforms`: `crop_scale`"),
    ActionKey(
        "normalize",
        scripts=(FORK,),
        only=True,
        why="Kinema prepares every clip: dataset.preprocess=ma52_fork as the fork does, or ma52 with one scale.",
    ),
    ActionKey("preprocess_3d", scripts=(FORK,), usual=True, ignored="did nothing there and is left out"),
    ActionKey("skip_2d_lifting", scripts=(FORK,), usual=True, ignored="did nothing there and is left out"),
)
_BY_NAME = {key.name: key for key in KEYS}


@dataclass(frozen=True)
class Config:
    """A yaml file, read.

    Attributes:
        script: whose file it is.
        experiment: our recipe that is nearest.
        values: its keys; empty where the file is one of the official ones and not at hand.
    """

    script: str
    experiment: str
    values: Mapping[str, Any]

    @property
    def finetune(self) -> bool:
        """Whether training starts from pretrained weights."""
        return bool(self.values.get("finetune", self.experiment.endswith("_ft")))

    def write(self, command: Command) -> None:
        """Set what the file says for training and evaluation.

        Raises:
            LegacyError: a value has no counterpart.
        """
        training = command.mode == TRAIN
        # The scripts look for their data here.
        command.set("dataset.root", _ROOT[self.script])
        for name, value in self.values.items():
            key = _BY_NAME[name]
            if key.scripts and self.script not in key.scripts:
                command.note(f"{name}: {value} in the yaml is read by {key.scripts[0]} alone and is left out.")
            elif training or not key.training:
                key.write(command, value)
        self._write_head(command)
        self._write_data(command)
        self._write_crop(command)
        if training:
            self._write_training(command)

    def _write_head(self, command: Command) -> None:
        version = self.values.get("model_version", _VERSION[self.script])
        if version != _VERSION[self.script]:
            trains = " or ".join(script for script, own in _VERSION.items() if own == version) or "no script"
            raise LegacyError(f"model_version: {version} in the yaml is what {trains} trains, not {self.script}.")
        hidden = self.values.get("hidden_dim", _WIDTH)
        if version == "embed":
            command.set("model.hidden", hidden, typed=False)
        elif hidden != _WIDTH:
            command.note(
                f"hidden_dim: {hidden} in the yaml never reached the head, which is {_WIDTH} wide there and here "
                f"(-- model.hidden={hidden} makes it so)."
            )

    def _write_data(self, command: Command) -> None:
        count = self.values.get("action_classes")
        if self.script == FORK:
            for name in ("dataset", "data_split"):
                if self.values.get(name, "custom") != "custom":
                    raise LegacyError(f"{name}: {self.values[name]} in the yaml: {FORK} reads custom alone.")
            if count not in (None, 52):
                command.set("dataset.num_classes", count)
                command.set("dataset.classes", list(range(count)))
                command.note(
                    f"action_classes: {count}: the classes are called by numbers; dataset.classes=FILE names them."
                )
            return
        if self.script == ONESHOT:
            return
        data = self.values.get("dataset", "ntu60_hrnet")
        known = {"ntu60_hrnet": 60, "ntu120_hrnet": 120}
        if data not in known:
            raise LegacyError(f"dataset: {data} in the yaml is none of {', '.join(known)}.")
        if count not in (None, known[data]):
            raise LegacyError(
                f"action_classes: {count} in the yaml, but {data} has {known[data]} classes. Clips of your own are "
                "read with dataset=clip_folder (docs/datasets/clip_folder.md)."
            )
        if data == "ntu120_hrnet":
            _read_ntu120(command)
            command.set("dataset.frames", self.values.get("clip_len", 243))
        command.set("dataset.protocol", self._split, typed=False)

    @property
    def _split(self) -> str:
        recipe = "xview" if "xview" in self.experiment else "xsub"
        split = self.values.get("data_split", recipe)
        if split not in ("xsub", "xview", "xset"):
            raise LegacyError(f"data_split: {split} in the yaml is none of xsub, xview, xset.")
        return str(split)

    def _write_crop(self, command: Command) -> None:
        names = ("scale_range_train", "scale_range_test")
        if not any(name in self.values for name in names):
            return
        train, test = (self.values.get(name) or [] for name in names)
        # The fork takes [1, 1] for no crop; MotionBERT crops with it.
        off = [not one or (self.script == FORK and list(one) == [1, 1]) for one in (train, test)]
        if off[0] != off[1]:
            raise LegacyError(
                f"scale_range_train: {train} and scale_range_test: {test} in the yaml crop the clips of one split "
                "only; Kinema shows a network clips of one kind. Give both a range, or neither."
            )
        cropped = [{"crop_scale": {"train": _floats(train), "test": _floats(test)}}]
        command.set("dataset.transforms", [] if off[0] else cropped, typed=False)

    def _write_training(self, command: Command) -> None:
        get = self.values.get
        if get("random_move") is False:
            command.set("dataset.augment", [])
        parts = get("partial_train") or []
        if parts and self.finetune:
            command.set("task.trainable", ["head.*", *(f"backbone.*{part}*" for part in parts)])
        first, second = "backbone", "head"
        if self.script == FORK:
            first, second = second, first
        if (rate := get(f"lr_{first}")) is not None:
            command.set("task.optimizer.lr", rate, typed=False)
        if (other := get(f"lr_{second}")) is not None:
            alike = other == rate and self.experiment in _ONE_RATE
            command.set("task.parameter_groups", None if alike else {f"{second}.*": {"lr": other}}, typed=False)


def _floats(limits: Any) -> list[float]:
    return [float(limit) for limit in limits]


def _read_ntu120(command: Command) -> None:
    """The clips of NTU RGB+D 120 as MotionBERT reads those of NTU RGB+D."""
    command.choose("dataset=ntu120")
    command.set("dataset.preprocess", "ntu_compat")
    command.set("dataset.rule", "frozen")
    command.set("dataset.selection", "test")
    command.set("dataset.validation.by", None)


def read(text: str, script: str) -> Config:
    """Read a yaml file, or recognise an official one by its name where it is not at hand.

    Args:
        text: the file, as typed.
        script: name of the script that it was given to.

    Raises:
        LegacyError: for an unknown file, a file of another script, an unknown key.
    """
    path = Path(text)
    if path.is_file():
        values = load(path, _BY_NAME, "those of the action scripts")
        return Config(script, _nearest(script, values), values)
    known = OFFICIAL[script]
    name = official(text, known)
    if name:
        return Config(script, known[name], {})
    other = next((one for one, files in OFFICIAL.items() if official(text, files)), None)
    if other is not None:
        raise LegacyError(f"--config {text} is for {other}, not for {script}.")
    files = ", ".join(f"configs/{one}.yaml" for one in known)
    raise LegacyError(f"--config {text} is no file here and none of {script}'s ({files}).")


def _nearest(script: str, values: Mapping[str, Any]) -> str:
    if script == FORK:
        return "ma52/fork"
    start = "ft" if values.get("finetune") else "scratch"
    if script == ONESHOT:
        return f"motionbert/ntu120_oneshot_{start}"
    return f"motionbert/ntu60_{'xview' if values.get('data_split') == 'xview' else 'xsub'}_{start}"
