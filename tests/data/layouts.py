"""Tiny data sets written in the field's file layouts: believable motion from the synthetic actors, then changed."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kinema.core.camera import camera_table, intrinsics_vector, project, to_pixels, world_to_camera
from kinema.core.skeleton import skeleton
from kinema.data.synthetic.actions import perform
from kinema.data.synthetic.cameras import rig
from kinema.data.synthetic.skeleton import Body

LENSES = camera_table()["h36m"]["intrinsics"]
H36M17 = skeleton("h36m17")
TRIALS = {
    "train_A": ("walk 1", "squat 2"),
    "train_B": ("walk 3", "wave 4"),
    "test_C": ("walk 5", "squat 6"),
}  # fmt: skip


def seen(world: np.ndarray, lens: dict[str, Any], outer: dict[str, Any]) -> np.ndarray:
    """Pixels (T, J, 2) of world points in one camera."""
    place = (np.asarray(outer[key], np.float32) for key in ("orientation", "translation"))
    screen = project(world_to_camera(world, *place), intrinsics_vector(lens))
    return to_pixels(screen, lens["res_w"], lens["res_h"]).astype(np.float32)


@dataclass
class Layout:
    """Contents of the files of the VideoPose3D format; tests change them before `save`."""

    positions_3d: dict[str, dict[str, np.ndarray]]
    positions_2d: dict[str, dict[str, list[np.ndarray]]]
    cameras: dict[str, Any]
    metadata: dict[str, Any] = field(default_factory=dict)
    confidence: dict[str, dict[str, list[np.ndarray]]] | None = None

    def project(self) -> None:
        """Make the 2D anew from the 3D."""
        self.positions_2d = {
            subject: {
                action: [
                    seen(world, lens, outer)
                    for lens, outer in zip(LENSES, self.cameras["extrinsics"][subject], strict=True)
                ]
                for action, world in actions.items()
            }
            for subject, actions in self.positions_3d.items()
        }

    def save(self, folder: Path, dataset: str = "cmu", keypoints: str = "noisy") -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        entries: dict[str, Any] = {"positions_2d": self.positions_2d, "metadata": self.metadata}
        if self.confidence is not None:
            entries["confidence"] = self.confidence
        packed = {key: np.array(value, dtype=object) for key, value in entries.items()}
        np.savez(folder / f"data_2d_{dataset}_{keypoints}.npz", **packed)
        np.savez(folder / f"data_3d_{dataset}.npz", positions_3d=np.array(self.positions_3d, dtype=object))
        (folder / f"cameras_{dataset}.json").write_text(json.dumps(self.cameras))
        return folder


def layout(trials: dict[str, tuple[str, ...]] = TRIALS, frames: int = 40) -> Layout:
    """Clean data of the CMU kind: json cameras, 17 joints, metres, exact keypoints."""
    positions: dict[str, dict[str, np.ndarray]] = {}
    extrinsics: dict[str, list[dict[str, Any]]] = {}
    for number, (subject, actions) in enumerate(trials.items()):
        random = np.random.default_rng(number)
        body = Body.draw(random)
        extrinsics[subject] = [
            {"orientation": camera.orientation.tolist(), "translation": camera.translation.tolist()}
            for camera in rig(random)
        ]
        positions[subject] = {
            action: perform(action.split()[0], body, random, frames + 2 * i, 50.0).astype(np.float32)
            for i, action in enumerate(actions)
        }
    symmetry = [list(H36M17.left), list(H36M17.right)]
    made = Layout(
        positions,
        {},
        {"fps": 50, "intrinsics": LENSES, "extrinsics": extrinsics},
        {"layout_name": "h36m", "num_joints": 17, "keypoints_symmetry": symmetry},
    )
    made.project()
    return made


def motionbert(frames: int = 30) -> dict[str, dict[str, Any]]:
    """The two dicts of MotionBERT's pickle, built as its reference says (pinhole projection, 2 m box)."""
    random = np.random.default_rng(0)
    out: dict[str, dict[str, Any]] = {}
    for split, names in (
        ("train", [("s_01_act_02_cam_01", 0), ("s_05_act_03_cam_02", 1)]),
        ("test", [("s_09_act_02_subact_01_ca_03", 2), ("s_09_act_05_subact_02_ca_04", 3)]),
    ):
        rows: dict[str, list[Any]] = {}
        for i, (source, lens) in enumerate(names):
            camera = rig(random)[lens]
            world = perform("walk", Body.draw(random), random, frames + i, 50.0)
            pose = world_to_camera(world.astype(np.float32), camera.orientation, camera.translation) * 1000
            focal, centre = LENSES[lens]["focal_length"], LENSES[lens]["center"]
            points = pose[..., :2] / pose[..., 2:] * focal + centre
            root = pose[:, :1, 2]
            ratio = (2000 * focal[0] / root + 1) / 2000
            depth = ratio * (pose[..., 2] - root)
            image = np.concatenate([points, depth[..., None]], axis=-1)
            rows.setdefault("joint_2d", []).append(points + random.normal(size=points.shape))
            rows.setdefault("confidence", []).append(random.uniform(size=(len(pose), 17, 1)))
            rows.setdefault("joint3d_image", []).append(image)
            rows.setdefault("2.5d_factor", []).append(1 / ratio[:, 0])
            rows.setdefault("joints_2.5d_image", []).append(image / ratio[..., None])
            rows.setdefault("camera_name", []).append([LENSES[lens]["id"]] * len(pose))
            rows.setdefault("source", []).append([source] * len(pose))
            rows.setdefault("action", []).append([("Walk", "Greet")[i]] * len(pose))
        columns = {key: np.concatenate(parts) for key, parts in rows.items()}
        columns |= {key: columns[key].tolist() for key in ("camera_name", "source", "action")}
        if split == "train":
            for key in ("2.5d_factor", "joints_2.5d_image", "action"):
                del columns[key]
        out[split] = columns
    return out


def save_motionbert(folder: Path, splits: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "h36m_sh_conf_cam_source_final.pkl").write_bytes(pickle.dumps(splits))
    return folder
