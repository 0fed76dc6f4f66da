"""Reader of the VideoPose3D format: data_3d_<dataset>.npz, data_2d_<dataset>_<keypoints>.npz and a camera table.

The npz files hold dicts subject -> action -> array (3D, world space) or list of arrays, one per camera (2D, pixels).
One sequence of the store is one subject, action and camera: 2D in network units, 3D in that camera's space, metres.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kinema.core.camera import world_to_camera
from kinema.core.keypoints import coco_to_h36m
from kinema.core.preprocess import preprocess
from kinema.core.skeleton import SKELETONS, Skeleton, skeleton
from kinema.data import raw
from kinema.data.cameras import TABLES, Cameras
from kinema.data.safe_pickle import load_npz, npz_keys
from kinema.data.sequences import Sequences
from kinema.errors import ConfigError, DataError

log = logging.getLogger(__name__)

# Raised when the result of `read` changes: part of the cache's key.
VERSION = 1

# `layout_name` of the files' metadata.
_LAYOUTS = {"h36m": "h36m17", "coco": "coco17", "humaneva15": "humaneva15"}

Nested = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Options:
    """Options of this reader, as in `dataset.reader_options`.

    Attributes:
        dataset: the word after data_3d_ and data_2d_ in the file names.
        keypoints: the word behind it in the 2D file: gt, cpn_ft_h36m_dbb, ...
        cameras: "h36m" or "humaneva15" (the shipped tables), "custom" (no calibration, one camera for drawing), or the
            name of a json file in the data set's folder.
        skeleton: of the 3D joints that come out; for drawing where there is no 3D.
        skeleton2d: of the 2D joints that come out.
        source_skeleton: of the 3D file, where it is reduced to `skeleton` by joint names.
        has_3d: whether there is a 3D file.
        convert2d: whether COCO keypoints are converted where `skeleton2d` is h36m17.
        drop: sequences to leave out, as subject/action.
        unit: "m" or "mm", of the 3D file.
        fill_gaps: whether missing 2D points (NaN, or a frame of zeros) are filled by straight lines in time, with score
            0 where the file has scores.
        fps: frames per second; None takes the camera table's.
        preprocess: way from pixels to network units (`core/preprocess.py`).
        source: the sentence that says where the files come from.
    """

    dataset: str
    keypoints: str
    cameras: str
    skeleton: str
    skeleton2d: str
    source_skeleton: str | None = None
    has_3d: bool = True
    convert2d: bool = False
    drop: tuple[str, ...] | list[str] = field(default=())
    unit: str = "m"
    fill_gaps: bool = False
    fps: float | None = None
    preprocess: str = "videopose3d"
    source: str = ""

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> Options:
        """Check names and values."""
        raw.known_options("videopose3d", options, {entry.name: entry for entry in fields(cls)})
        made = cls(**options)
        raw.one_of("unit", made.unit, ("m", "mm"))
        if not made.cameras.endswith(".json"):
            raw.one_of("cameras", made.cameras, (*TABLES, "<file>.json"))
        if made.has_3d and made.cameras == "custom":
            raise ConfigError(
                "3D data needs cameras. Set dataset.reader_options.cameras=h36m, or has_3d=false for 2D alone."
            )
        return made


@dataclass(frozen=True)
class _Files:
    positions: Path | None
    keypoints: Path
    cameras: Path | None


def describe() -> str:
    """One paragraph about the format."""
    return (
        "VideoPose3D format: data_3d_<dataset>.npz (subject -> action -> (T, J, 3) world metres), "
        "data_2d_<dataset>_<keypoints>.npz (subject -> action -> one (T, J, 2) pixel array per camera), cameras from "
        "a shipped table or a json file."
    )


def files(root: Path, **options: Any) -> list[Path]:
    """Raw files that `read` opens.

    Raises:
        DataError: one of them is not there; says where it is expected and where it comes from.
    """
    found = _files(Path(root), Options.parse(options))
    return [path for path in (found.positions, found.keypoints, found.cameras) if path is not None]


def read(root: Path, *, report: raw.Report = raw.raise_fault, **options: Any) -> Sequences:
    """Read every sequence that has 2D (and 3D, where the data set has any).

    Order of the rows: subjects as in the 3D file, their actions as in the 2D file, cameras 0, 1, ...

    Args:
        root: the data set's folder.
        report: what is done with a fault that can be stepped over; default: it is raised.
        options: see `Options`.

    Returns:
        A store with `pose2d` (N, J2, 2), or 3 channels where the file has detector scores; `pose3d` (N, J, 3)
        absolute camera-space metres.
    """
    chosen = Options.parse(options)
    found = _files(Path(root), chosen)
    reader = _Reader(chosen, found, report)
    items = list(reader.sequences())
    if not items:
        raise DataError(f"{found.keypoints} holds no sequence that can be used. {chosen.source}".strip())
    return Sequences.from_arrays(
        items,
        skeleton=skeleton(chosen.skeleton),
        skeleton2d=skeleton(chosen.skeleton2d),
        space="camera",
        meta={"dataset": chosen.dataset, "keypoints": chosen.keypoints, "preprocess": chosen.preprocess},
    )


def _files(root: Path, options: Options) -> _Files:
    keypoints = f"data_2d_{options.dataset}_{options.keypoints}.npz"
    source = options.source
    others = {
        path.stem.removeprefix(f"data_2d_{options.dataset}_")
        for folder in (root, root.parent)
        for path in folder.glob(f"data_2d_{options.dataset}_*.npz")
    }
    beside = f" There is: dataset.reader_options.keypoints={' or '.join(sorted(others))}." if others else ""
    return _Files(
        positions=raw.locate(root, f"data_3d_{options.dataset}.npz", source) if options.has_3d else None,
        keypoints=raw.locate(root, keypoints, source + beside),
        cameras=raw.locate(root, options.cameras, source) if options.cameras.endswith(".json") else None,
    )


class _Reader:
    """The contents of the files and the way from them to sequences."""

    def __init__(self, options: Options, found: _Files, report: raw.Report) -> None:
        self.options = options
        self.report = report
        self.target = skeleton(options.skeleton)
        self.target2d = skeleton(options.skeleton2d)
        self.cameras = Cameras(options.cameras, found.cameras, options.fps, placed=options.has_3d)
        self.name2d = found.keypoints.name
        self.name3d = found.positions.name if found.positions else ""
        stored = load_npz(found.keypoints)
        self.positions2d = _nested(stored, "positions_2d", found.keypoints)
        self.scores = _nested(stored, "confidence", found.keypoints) if "confidence" in stored else None
        self.metadata: dict[str, Any] = stored.get("metadata") or {}
        self.convert = self._conversion()
        self.positions3d: Nested | None = None
        if found.positions:
            self.positions3d = _nested(load_npz(found.positions, ["positions_3d"]), "positions_3d", found.positions)
            self._check_joints(self.positions3d)

    def sequences(self) -> Iterator[dict[str, Any]]:
        """One mapping per sequence, for `Sequences.from_arrays`."""
        for subject in self.positions2d if self.positions3d is None else self.positions3d:
            if subject not in self.positions2d:
                self.report(DataError(f"{self.name2d} has no subject {subject}, which {self.name3d} has. {_PAIR}"))
                continue
            for action in self.positions2d[subject]:
                if f"{subject}/{action}" not in self.options.drop:
                    yield from self._views(subject, action)
            self._check_actions(subject)

    def _views(self, subject: str, action: str) -> Iterator[dict[str, Any]]:
        """The cameras of one recording."""
        views = self.positions2d[subject][action]
        world = None
        if self.positions3d is not None:
            if action not in self.positions3d[subject]:
                log.debug("%s/%s has no 3D in %s: left out.", subject, action, self.name3d)
                return
            world = self._metres(self.positions3d[subject][action])
        size = self.metadata.get("video_metadata", {}).get(subject)
        cameras = self.cameras.of(subject, size)
        if len(views) != len(cameras):
            self.report(
                DataError(
                    f"{subject}/{action}: {self.name2d} has {len(views)} cameras, {self.cameras.name} has "
                    f"{len(cameras)}. Use the camera table that belongs to the data: dataset.reader_options.cameras."
                )
            )
            return
        for index, (view, camera) in enumerate(zip(views, cameras, strict=True)):
            item = self._item(
                f"{subject}/{action}/{index}", np.asarray(view), self._score(subject, action, index), world, camera
            )
            if item is not None:
                # The base action is the name without the number of the take: "Walking 1" -> "Walking".
                base = action.split(" ")[0]
                yield {"subject": subject, "action": base, "trial": action, "camera": str(index), "split": "", **item}

    def _score(self, subject: str, action: str, index: int) -> np.ndarray | None:
        """Detector scores (T, J2) of one view, where the file has any."""
        if self.scores is None:
            return None
        try:
            return np.asarray(self.scores[subject][action][index], dtype=np.float32)
        except (LookupError, TypeError, ValueError) as error:
            raise DataError(
                f"{self.name2d}: confidence of {subject}/{action}/{index} cannot be read ({error}). {_PAIR}"
            ) from error

    def _item(
        self,
        label: str,
        view: np.ndarray,
        score: np.ndarray | None,
        world: np.ndarray | None,
        camera: Mapping[str, Any],
    ) -> dict[str, Any] | None:
        """Arrays and camera of one sequence, or None after a reported fault that leaves nothing to use."""
        frames = len(view) if world is None else len(world)
        if len(view) < frames:
            self.report(DataError(f"{label}: 2D has {len(view)} frames, 3D has {frames}. {_PAIR}"))
            return None
        if frames == 0:
            self.report(DataError(f"{label} has no frames. Remove it, or leave it out: {_DROP}."))
            return None
        pixels = self._keypoints(label, view[:frames], None if score is None else score[:frames])
        width, height = camera["width"], camera["height"]
        item = {
            "pose2d": preprocess(self.options.preprocess).to_network(pixels, width, height).astype(np.float32),
            **{key: camera[key] for key in ("width", "height", "fps", "azimuth", "orientation", "translation")},
        }
        if camera["intrinsics"] is not None:
            item["intrinsics"] = camera["intrinsics"]
        if world is not None:
            place = (torch.from_numpy(camera[key]) for key in ("orientation", "translation"))
            item["pose3d"] = world_to_camera(torch.from_numpy(world), *place).numpy()
        return item

    def _keypoints(self, label: str, view: np.ndarray, score: np.ndarray | None) -> np.ndarray:
        """Pixels, and scores as a third channel, in the order of `skeleton2d`: (T, J2, 2 or 3) float32."""
        if view.ndim != 3 or view.shape[-1] not in (2, 3) or view.dtype.kind != "f":
            raise DataError(
                f"{self.name2d}, {label}: {view.dtype} {view.shape}, expected numbers (frames, joints, 2 or 3)."
            )
        joints = len(skeleton("coco17")) if self.convert else len(self.target2d)
        if view.shape[1] != joints:
            raise DataError(
                f"{self.name2d}, {label}: {view.shape[1]} joints in the image, {joints} expected "
                f"({self.target2d.name}). Set dataset.skeleton2d to the layout of the file."
            )
        if score is not None:
            if score.shape[:2] != view.shape[:2]:
                raise DataError(f"{self.name2d}, {label}: confidence {score.shape} for keypoints {view.shape}. {_PAIR}")
            view = np.concatenate([view[..., :2], score.reshape(*view.shape[:2], 1)], axis=-1, dtype=np.float32)
        view = np.asarray(view, dtype=np.float32)
        if self.options.fill_gaps:
            view = _whole(view)
        return coco_to_h36m(view) if self.convert else view

    def _kept(self, world: np.ndarray) -> np.ndarray:
        """Joints of `skeleton` out of those the file has."""
        source = self.options.source_skeleton
        if source is None or world.shape[1] == len(self.target):
            return world
        return world[:, list(skeleton(source).map_to(self.target))]

    def _metres(self, world: np.ndarray) -> np.ndarray:
        """A writable float32 copy (T, J, 3)."""
        kept = np.array(self._kept(world), dtype=np.float32)
        return kept / np.float32(1000) if self.options.unit == "mm" else kept

    def _check_joints(self, positions: Nested) -> None:
        allowed = {len(self.target)}
        if self.options.source_skeleton:
            allowed.add(len(skeleton(self.options.source_skeleton)))
        for subject, actions in positions.items():
            for action, world in actions.items():
                if not isinstance(world, np.ndarray) or world.dtype.kind != "f":
                    raise DataError(f"{self.name3d}, {subject}/{action}: no array of numbers. Use the original file.")
                shape = world.shape
                if len(shape) != 3 or shape[2] != 3:
                    raise DataError(f"{self.name3d}, {subject}/{action}: shape {shape}, expected (frames, joints, 3).")
                if shape[1] not in allowed:
                    raise DataError(
                        f"{self.name3d}, {subject}/{action}: {shape[1]} joints, {len(self.target)} expected "
                        f"({self.target.name}). {self._joint_remedy(shape[1])}"
                    )

    def _joint_remedy(self, joints: int) -> str:
        if joints == len(skeleton("h36m32")) and self.target.name == "h36m17":
            return (
                "These are the 32 of the Human3.6M archive; to reduce them: "
                "dataset.reader_options.source_skeleton=h36m32."
            )
        names = [known.name for known in SKELETONS.values() if len(known) == joints]
        return f"Set dataset.skeleton={' or '.join(names)}." if names else "Use the file that belongs to this data set."

    def _check_actions(self, subject: str) -> None:
        if self.positions3d is None:
            return
        for action in self.positions3d[subject]:
            if action not in self.positions2d[subject] and f"{subject}/{action}" not in self.options.drop:
                self.report(
                    DataError(
                        f"{subject}/{action} is in {self.name3d} but not in {self.name2d}. "
                        f"{_PAIR} Or leave it out: {_DROP}."
                    )
                )

    def _conversion(self) -> bool:
        """Whether the file's keypoints are converted to `skeleton2d`; refuses a layout that does not fit."""
        layout = layout_of(self.metadata)
        if layout is None or layout.name == self.target2d.name:
            return False
        if layout.name == "coco17" and self.target2d.name == "h36m17" and self.options.convert2d:
            log.info("%s: COCO keypoints are converted to Human3.6M joints.", self.name2d)
            return True
        remedy = f"Set dataset.skeleton2d={layout.name}"
        if layout.name == "coco17" and self.target2d.name == "h36m17":
            remedy += ", or dataset.reader_options.convert2d=true"
        raise DataError(f"{self.name2d} holds {layout.name} keypoints, not {self.target2d.name}. {remedy}.")


_PAIR = "Use a 2D and a 3D file made from the same recordings."
_DROP = "dataset.reader_options.drop"


def _nested(stored: Mapping[str, Any], key: str, path: Path) -> Nested:
    """The dict subject -> action -> value of an entry."""
    if key not in stored:
        raise DataError(f"{path} has no entry {key!r}; it holds {', '.join(npz_keys(path))}. Use the original file.")
    value = stored[key]
    if not isinstance(value, dict) or not all(isinstance(actions, dict) for actions in value.values()):
        raise DataError(f"{path}: {key} is no dict of subjects and actions. Use the original file.")
    return value


def layout_of(metadata: Mapping[str, Any]) -> Skeleton | None:
    """The 2D skeleton a file's metadata speaks of, by name or else by its number of joints and symmetry."""
    name = _LAYOUTS.get(metadata.get("layout_name", ""))
    if name is not None:
        return skeleton(name)
    symmetry = metadata.get("keypoints_symmetry")
    if symmetry is None:
        return None
    left, right = (tuple(int(joint) for joint in side) for side in symmetry)
    for known in SKELETONS.values():
        if (len(known), known.left, known.right) == (metadata.get("num_joints"), left, right):
            return known
    raise DataError(
        f"The keypoints' layout ({metadata.get('num_joints')} joints, left {list(left)}, right {list(right)}) is none "
        f"that is known: {', '.join(SKELETONS)}. Convert the file to one of these."
    )


def _whole(view: np.ndarray) -> np.ndarray:
    """Keypoints (T, J, 2 or 3) without gaps; detectors write NaN or a frame of zeros where they found nobody."""
    hole = raw.holes(view) | (view[..., :2] == 0).all((1, 2))[:, None]
    if not hole.any():
        return view
    view = raw.filled(view, hole)
    view[..., 2:][hole] = 0
    return view
