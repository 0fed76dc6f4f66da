"""Layouts of checkpoint files, in and out: which key holds the weights, which prefixes go, what else is inside."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from kinema.checkpoints.files import read_content, sha256
from kinema.errors import CheckpointError
from kinema.models.registry import Shapes

FORMAT_VERSION = 1  # of the "kinema" record
MESSAGE_LINES = 10  # names listed of each kind in a report


@dataclass(frozen=True)
class Envelope:
    """One layout of a checkpoint file.

    Attributes:
        name: how reports call it.
        matches: test on the content of a file; exactly one envelope may answer yes.
        parts: top-level key of each set of weights -> prefix of its names inside our model. A part that is None in
            the file (a trajectory network that was not trained) is left out.
        prefixes: what is stripped from every name of a part, in this order, where all names carry it.
        preprocess: the way from raw to network units (core/preprocess.py, core/clip_preprocess.py) that goes with this
            layout, by name or told from the names and shapes of the weights.
        families: registered models whose authors publish in this layout; export writes them so.
        written_prefix: what export puts before every name.
        extras: further keys that export writes; a value that the source file has under this key comes first.
        guesses: published constructor values that go with the layout, where weights cannot tell them.
        carried: keys of the source file that export writes again where the weights are still those of the file.
        in_meta: epoch and iteration stand in a dict `meta` and the rate in the optimiser alone, as mmcv writes them.
        suffix: what the authors' files end with.
    """

    name: str
    matches: Callable[[Mapping[str, Any]], bool]
    parts: Mapping[str, str]
    prefixes: tuple[str, ...] = ("module.", "_orig_mod.")
    preprocess: str | Callable[[Shapes], str | None] | None = None
    families: tuple[str, ...] = ()
    written_prefix: str = ""
    extras: Mapping[str, Any] = field(default_factory=dict)
    guesses: Mapping[str, Any] = field(default_factory=dict)
    carried: tuple[str, ...] = ()
    in_meta: bool = False
    suffix: str = ".bin"

    @property
    def bare(self) -> bool:
        """Whether a file holds tensors by name and nothing else."""
        return set(self.parts) == {""}

    def preprocess_of(self, content: Mapping[str, Any], shapes: Shapes) -> str | None:
        """The preprocessing of a file: what Kinema's export wrote into it, else what goes with the layout."""
        told = content.get("preprocess")
        if isinstance(told, str):
            return told
        return self.preprocess(shapes) if callable(self.preprocess) else self.preprocess

    def write(
        self,
        state: Mapping[str, Tensor],
        epoch: int,
        lr: float | list[float],
        facts: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Put weights back into this layout; `epoch` and `lr` are what the official scripts print and resume from.

        Args:
            state: tensors by the names of the model.
            epoch: number of the epoch.
            lr: learning rate, of each parameter group where the scripts write a list.
            facts: plain values of the file that the weights came from.
        """
        if self.bare:
            return dict(state)
        content: dict[str, Any] = {"epoch": epoch, "lr": lr, "optimizer": None}
        if self.in_meta:
            content = {"meta": {"epoch": epoch, "iter": (facts or {}).get("iter", 0)}}
        named = {prefix: key for key, prefix in self.parts.items() if prefix}
        for name, tensor in state.items():
            prefix = next((prefix for prefix in named if name.startswith(prefix)), "")
            key = named[prefix] if prefix else next(key for key, empty in self.parts.items() if not empty)
            content.setdefault(key, {})[self.written_prefix + name[len(prefix) :]] = tensor
        # published behaviour: the official VideoPose3D script crashes on `model_traj: None`, so a file without
        # a trajectory network has no such key, and then nothing of the trajectory either.
        extras = {key: (facts or {}).get(key, value) for key, value in self.extras.items()}
        return content | (extras if all(key in content for key in self.parts) else {})


def _is_weights(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(item, Tensor) for item in value.values())


def _holds(*keys: str, without: tuple[str, ...] = ()) -> Callable[[Mapping[str, Any]], bool]:
    """The first key holds weights, the others are present, those of `without` are not."""

    def test(content: Mapping[str, Any]) -> bool:
        present = all(key in content for key in keys) and not any(key in content for key in without)
        return present and _is_weights(content[keys[0]])

    return test


def _is_action(content: Mapping[str, Any]) -> bool:
    """The networks of train_action.py: a head of one linear layer (embedding) or with BatchNorm, on a backbone."""
    names = {name.removeprefix("module.").removeprefix("_orig_mod.") for name in content["model"]}
    layers = {name.split(".")[1] for name in names if name.startswith("head.")}
    return layers in ({"fc1"}, {"fc1", "bn", "fc2"}) and any(name.startswith("backbone.") for name in names)


def _action(*, scheduler: bool) -> Callable[[Mapping[str, Any]], bool]:
    """An action network's file, which holds the state of a scheduler (the MA-52 fork) or does not (MotionBERT)."""
    weights = _holds("model", without=("min_mpjpe",))
    return lambda content: weights(content) and _is_action(content) and ("scheduler" in content) == scheduler


def _other_model(content: Mapping[str, Any]) -> bool:
    return _holds("model", without=("min_mpjpe",))(content) and not _is_action(content)


def _is_pyskl(content: Mapping[str, Any]) -> bool:
    """A graph network of PYSKL: other programs that train with mmcv write the same keys around other names."""
    weights = _holds("state_dict", without=("kinema",))(content)
    return weights and any("cls_head.fc_cls." in name for name in content["state_dict"])


def _other_state_dict(content: Mapping[str, Any]) -> bool:
    return _holds("state_dict", without=("kinema",))(content) and not _is_pyskl(content)


def _pyskl(shapes: Shapes) -> str | None:
    """PYSKL's preparation by the number of joints: 17 are the 2D points of COCO, 25 the 3D joints of NTU RGB+D."""
    joints = {shape[-1] for name, shape in shapes.items() if name.split(".")[-1] == "A"}
    return {17: "pyskl_2d", 25: "pyskl_3d"}.get(max(joints, default=0))


_LIFTING = ("model_traj", "random_state", "min_loss")

ENVELOPES: tuple[Envelope, ...] = (
    # Kinema's own .ckpt (Lightning) and .safetensors.
    Envelope("kinema", _holds("state_dict", "kinema"), {"state_dict": ""}, prefixes=("model.", "_orig_mod.")),
    # VideoPose3D, run.py: no prefix, trajectory network or None.
    Envelope(
        "videopose3d",
        _holds("model_pos", "model_traj"),
        {"model_pos": "", "model_traj": "trajectory."},
        preprocess="videopose3d",
        families=("videopose3d",),
        extras={"random_state_semi": None},
    ),
    # PoseFormer V1/V2 and HMSFT, run_poseformer.py.
    Envelope(
        "poseformer",
        _holds("model_pos", "random_state", without=("model_traj", "min_loss")),
        {"model_pos": ""},
        preprocess="videopose3d",
        families=("poseformer", "poseformerv2"),
        written_prefix="module.",
    ),
    # MotionBERT and its descendants (PoseMamba), train.py.
    Envelope(
        "motionbert",
        _holds("model_pos", "min_loss", without=("model_traj", "random_state")),
        {"model_pos": ""},
        preprocess="motionbert",
        families=("dstformer", "posemamba"),
        written_prefix="module.",
    ),
    # The same with everything else stripped, as released.
    Envelope("model_pos", _holds("model_pos", without=_LIFTING), {"model_pos": ""}),
    # MotionAGFormer and DBMambaPose, train.py and train_3dhp.py. Best error so far: their resume compares with it.
    Envelope(
        "motionagformer",
        _holds("model", "min_mpjpe"),
        {"model": ""},
        preprocess="motionbert",
        families=("motionagformer", "dbmambapose"),
        written_prefix="module.",
        extras={"min_mpjpe": math.inf},
    ),
    # MA-52 fork of MotionBERT, train_action_custom.py: backbone.* and head.*, the scheduler beside them. `best_acc` is
    # the best accuracy so far in percent; their resume compares with it.
    Envelope(
        "ma52_fork",
        _action(scheduler=True),
        {"model": ""},
        preprocess="ma52_fork",
        families=("action",),
        written_prefix="module.",
        extras={"scheduler": None, "best_acc": 0},
        guesses={"backbone.num_heads": 4},
        carried=("optimizer", "scheduler"),
    ),
    # MotionBERT, train_action.py and train_action_1shot.py (`best_acc` of the latter is a fraction), or stripped.
    Envelope(
        "motionbert_action",
        _action(scheduler=False),
        {"model": ""},
        preprocess="ntu_compat",
        families=("action",),
        written_prefix="module.",
        extras={"best_acc": 0},
        carried=("optimizer",),
    ),
    # MotionBERT, train_mesh.py: backbone.* and head.*.
    Envelope("model", _other_model, {"model": ""}),
    # PYSKL, by mmcv's EpochBasedRunner: backbone.* and cls_head.*.
    Envelope(
        "mmcv",
        _is_pyskl,
        {"state_dict": ""},
        preprocess=_pyskl,
        families=("stgcn", "ctrgcn"),
        carried=("meta", "optimizer"),
        in_meta=True,
    ),
    Envelope("state_dict", _other_state_dict, {"state_dict": ""}),
    # Tensors by name and nothing else: released files of many, and whatever SMRNet and HumanMAC write (ckpt_*.pt, and
    # ckpt_ema_*.pt with the averaged weights).
    Envelope("bare", _is_weights, {"": ""}, families=("smrnet", "humanmac"), suffix=".pt"),
)


@dataclass(frozen=True)
class Weights:
    """The weights of a file and what the file says about them.

    Attributes:
        path: the file.
        sha256: of the file.
        envelope: name of its layout.
        state: tensors by the names that the model uses.
        part: which part was asked for, None = all.
        kind: "averaged" or "live" where the file holds both sets, "only" otherwise.
        record: Kinema's own record (model, args, task, spec, config), None in other files.
        preprocess: the way from raw to network units that these weights were trained with, None = not known.
        rest: whatever else the file holds (epoch, lr, optimizer, random_state, ...).
        guesses: published values of what weights cannot tell, that go with this layout.
    """

    path: Path
    sha256: str
    envelope: str
    state: dict[str, Tensor]
    part: str | None
    kind: str
    record: dict[str, Any] | None
    preprocess: str | None
    rest: dict[str, Any]
    guesses: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes, from which a family is recognised."""
        return {name: tuple(tensor.shape) for name, tensor in self.state.items()}


def read_weights(path: str | os.PathLike[str], *, part: str | None = None, weights: str = "averaged") -> Weights:
    """Read the weights of a checkpoint file onto the CPU without building a model.

    Args:
        path: an official file, a bare state dict, safetensors, or a .ckpt of Kinema.
        part: take only this part: a top-level key of a layout with several networks ("model_traj"), or the first
            word of the names ("backbone" of an action checkpoint); the prefix is stripped.
        weights: "averaged" (the EMA where the file has one) or "live".

    Raises:
        CheckpointError: for a missing, damaged or unsafe file, or one in no known layout.
    """
    path = Path(path).expanduser()
    if weights not in ("averaged", "live"):
        raise CheckpointError(f"weights={weights!r} is unknown. Use weights='averaged' or weights='live'.")
    content = read_content(path)
    envelope = _find_envelope(content, path)
    kind = "only"
    if envelope.name == "kinema":
        _check_record(content["kinema"], path)
        if "current_model_state" in content:
            kind = weights
    if kind == "live":  # Lightning's WeightAveraging: averaged = state_dict, live = current_model_state
        content = {**content, "state_dict": content["current_model_state"]}
    state, taken = _unwrap(content, envelope, path, part)
    record = content.get("kinema") if envelope.name == "kinema" else None
    rest = {} if envelope.bare else {k: v for k, v in content.items() if k not in (*taken, "kinema")}
    told = envelope.preprocess_of(content, {name: tuple(tensor.shape) for name, tensor in state.items()})
    return Weights(
        path=path,
        sha256=sha256(path),
        envelope=envelope.name,
        state=state,
        part=part,
        kind=kind,
        record=record,
        preprocess=(record.get("spec") or record).get("preprocess") if record else told,
        rest=rest,
        guesses=envelope.guesses if part is None else _of_part(envelope.guesses, part),
    )


def _of_part(guesses: Mapping[str, Any], part: str) -> dict[str, Any]:
    return {name[len(part) + 1 :]: value for name, value in guesses.items() if name.startswith(f"{part}.")}


def _find_envelope(content: Mapping[str, Any], path: Path) -> Envelope:
    found = [envelope for envelope in ENVELOPES if envelope.matches(content)]
    if len(found) == 1:
        return found[0]
    keys = ", ".join(repr(key) for key in list(content)[:MESSAGE_LINES])
    if found:
        names = ", ".join(envelope.name for envelope in found)
        raise CheckpointError(
            f"{path} can be read in {len(found)} ways ({names}); its keys are {keys}. "
            "Save the weights alone: torch.save(content[key], new_file)."
        )
    known = ", ".join(envelope.name for envelope in ENVELOPES)
    raise CheckpointError(
        f"{path} is no checkpoint of a known layout: its keys are {keys or 'none'}. Known layouts: {known}. "
        "A dict that maps names to tensors always works."
    )


def _check_record(record: Any, path: Path) -> None:
    if not isinstance(record, Mapping) or not {"version", "model", "args"} <= set(record):
        raise CheckpointError(f"{path}: its 'kinema' record lacks version, model or args. Export the weights again.")
    if record["version"] > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} was written by a newer Kinema (format {record['version']}, this one reads up to "
            f"{FORMAT_VERSION}). Update: pip install -U kinema."
        )


def _unwrap(
    content: Mapping[str, Any], envelope: Envelope, path: Path, part: str | None
) -> tuple[dict[str, Tensor], list[str]]:
    """Collect the parts under the names of the model; also return the top-level keys that were used."""
    present = {key: prefix for key, prefix in envelope.parts.items() if not key or content.get(key) is not None}
    for key in present:
        if key and not _is_weights(content[key]):
            raise CheckpointError(f"{path}: its key {key!r} holds no tensors. Save the file again or drop that key.")
    if part in present and part:
        return _stripped(content[part], envelope.prefixes), list(envelope.parts)
    state: dict[str, Tensor] = {}
    for key, prefix in present.items():
        named = _stripped(content[key] if key else content, envelope.prefixes)
        state.update({prefix + name: tensor for name, tensor in named.items()})
    if part is not None:
        chosen = {name[len(part) + 1 :]: tensor for name, tensor in state.items() if name.startswith(f"{part}.")}
        if not chosen:
            parts = [key for key in present if key] + sorted({name.split(".")[0] for name in state if "." in name})
            listed = ", ".join(parts[:MESSAGE_LINES]) + (", ..." if len(parts) > MESSAGE_LINES else "")
            raise CheckpointError(f"{path} has no part {part!r}. It has {listed}.")
        state = chosen
    return state, list(envelope.parts)


def _stripped(state: Mapping[str, Tensor], prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """Remove each prefix once where every name carries it.

    A Lightning module holds more than the network: with the prefix "model." only the names that carry it are taken.
    """
    result = dict(state)
    for prefix in prefixes:
        if all(name.startswith(prefix) for name in result) or prefix == "model.":
            marked = {name[len(prefix) :]: tensor for name, tensor in result.items() if name.startswith(prefix)}
            result = marked or result
    return result
