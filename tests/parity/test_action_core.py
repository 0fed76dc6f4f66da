"""Golden numbers of action input: preparation, frames, movement, crops, streams, and the contrastive loss."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kinema.core import losses, motion
from kinema.core.clip_preprocess import clip_preprocess
from kinema.core.crop import crop_scale
from kinema.core.skeleton import skeleton
from kinema.core.streams import stream
from tests.parity.golden import Arrays, Case, cases

pytestmark = pytest.mark.parity

STREAMS = {"j": "joint", "b": "bone", "jm": "joint_motion", "bm": "bone_motion"}
# What the golden README says of each case; a name that is not here has the defaults.
SUPCON: dict[str, dict[str, Any]] = {
    "peer_setting": {"temperature": 0.1},
    "two_views": {"temperature": 0.1},
    "mask": {"temperature": 0.2},
    "one_mode": {"temperature": 0.1, "anchors": "one"},
    "base_temp": {"temperature": 0.5, "base_temperature": 0.5},
}


@cases("action", "a_ma52_dataset")
def test_ma52_input(case: Case) -> None:
    check_augmentation(case, case.arrays("case_augment.npz"))
    check_test_items(case, case.arrays("case_test.npz"))
    check_training_items(case)
    # Reading the folders is test_action_ma52.py's.
    for path in case.path.rglob("*"):
        if path.suffix in (".json", ".txt", ".npy"):
            case.file(str(path.relative_to(case.path)))
    case.finish()


def check_augmentation(case: Case, arrays: Arrays) -> None:
    raw, normalised = arrays["normalize_in"], arrays["normalize_out"]
    case.close("normalize", forked(raw), normalised, atol=1e-6)
    converted = arrays["convert_out"]
    both = np.stack([normalised, np.zeros_like(normalised)])[:, : converted.shape[1]]
    case.close("convert", both, converted)
    for name in (name.removesuffix("_in") for name in arrays.names("move_") if name.endswith("_in")):
        draws = torch.from_numpy(arrays[f"{name}_draws_A_S_Tx_Ty"])
        moved = motion.drift(torch.from_numpy(arrays[f"{name}_in"]), draws)
        case.close(name, moved, arrays[f"{name}_out"], atol=1e-6)
    for name in (name.removesuffix("_in") for name in arrays.names("crop_") if name.endswith("_in")):
        ratio = arrays[f"{name}_ratio"]
        # Without a ratio the published function gave zeros before it drew one.
        boxed = crop_scale(torch.from_numpy(arrays[f"{name}_in"]), float(ratio[0]) if len(ratio) else 1.0)
        case.close(name, boxed, arrays[f"{name}_out"], atol=2e-6)
    for name in arrays.names("resample_"):
        if found := re.fullmatch(r"resample_(test|train)_T(\d+)_n(\d+)", name):
            kind, frames, count = found[1], int(found[2]), int(found[3])
            if kind == "test":
                case.close(name, motion.resample_indices(frames, count), arrays[name])
                continue
            draws = next(arrays[draw] for draw in arrays.names(f"{name}_draw_"))
            case.close(name, motion.resample_random(frames, count, draws), arrays[name])
            spread = motion.resample_spread(np.array([frames, 1]), count, np.stack([draws, draws]))
            case.close(f"{name} among others", spread[0], arrays[name])


def check_test_items(case: Case, arrays: Arrays) -> None:
    names, before = arrays["names"].tolist(), arrays["motions_before_crop"]
    assert len(arrays["labels"]) == len(names)  # their values are test_action_ma52.py's
    clips = [read(case, "test", name) for name in names]
    frames = before.shape[2]
    found = np.stack([with_person(spread(forked(clip), frames)) for clip in clips])
    case.close("test motions", found, before, atol=2e-5)
    for name in arrays.names("items_scale"):
        ratio = float(name.removeprefix("items_scale"))
        case.close(name, crop_scale(torch.from_numpy(found), ratio, batch_axes=1), arrays[name], atol=2e-5)
    for name in arrays.names("items"):
        if count := re.fullmatch(r"items(\d+)_no_crop_no_norm", name):
            plain = np.stack([spread(clip.astype(np.float32), int(count[1]))[None] for clip in clips])
            case.close(name, plain, arrays[name], atol=2e-5)


def check_training_items(case: Case) -> None:
    arrays, augment = case.arrays("case_train_resample.npz"), case.arrays("case_augment.npz")
    names, expected = arrays["names"].tolist(), arrays["motions_before_aug"]
    assert len(arrays["labels"]) == len(names)
    count = expected.shape[2]
    found = []
    for name in names:
        clip = read(case, "train", name)
        draws = next(arrays[draw] for draw in arrays.names("draw_") if draw.endswith(f"__{name}"))
        found.append(forked(clip)[motion.resample_random(len(clip), count, draws)])
    case.close("training motions", np.stack(found)[:, None], expected, atol=2e-5)

    every = next(name for name in augment.names("getitem_train_out_every"))
    step = int(every.removeprefix("getitem_train_out_every"))
    assert augment["getitem_train_names"].tolist() == names
    draws = torch.from_numpy(augment["getitem_train_draws"])
    nodes = (draws.shape[1] - 1) // 4
    pose = torch.from_numpy(np.stack([with_person(clip) for clip in found]))
    pose = motion.drift(pose, draws[:, :-1].reshape(-1, 4, nodes))
    items = crop_scale(pose, draws[:, -1], batch_axes=1)
    case.close("training items", items[:, :, ::step], augment[every], atol=5e-6)


def forked(clip: np.ndarray) -> np.ndarray:
    """One person's clip (T, 17, 3) as the fork's network takes it."""
    return clip_preprocess("ma52_fork").apply(clip[None], skeleton="h36m17")[0]


def read(case: Case, split: str, name: str) -> np.ndarray:
    return np.load(case.file(f"data/{split}/{name}/pose_3d.npy"))


def spread(clip: np.ndarray, count: int) -> np.ndarray:
    return clip[motion.resample_indices(len(clip), count)]


def with_person(clip: np.ndarray) -> np.ndarray:
    """A clip (T, J, C) with an absent second person."""
    return np.stack([clip, np.zeros_like(clip)])


@cases("action", "f_topk_supcon")
def test_supcon(case: Case) -> None:
    arrays = case.arrays()
    names = [name.split("_", 1)[1].removesuffix("_features") for name in arrays if name.endswith("_features")]
    assert names
    for name in names:
        features = torch.from_numpy(arrays[f"sup_{name}_features"])
        options = {
            **SUPCON.get(name, {}),
            "labels": given(arrays, f"sup_{name}_labels"),
            "mask": given(arrays, f"sup_{name}_mask"),
        }
        if f"sup_{name}_loss_is_nan" in arrays:
            published, ours = (losses.supcon(features, **options, published=kind) for kind in (True, False))
            case.close(f"{name} is nan", published.isnan(), arrays[f"sup_{name}_loss_is_nan"])
            case.close(f"{name} of ours is a number", ours.isfinite(), True)
            continue
        for published in (True, False):
            variable = features.clone().requires_grad_()
            loss = losses.supcon(variable, **options, published=published)
            loss.backward()
            assert variable.grad is not None
            case.close(f"{name} loss", loss, arrays[f"sup_{name}_loss"], rtol=1e-10)
            case.close(f"{name} gradient", variable.grad, arrays[f"sup_{name}_grad"], atol=1e-10)
    elsewhere(arrays, "topk_")  # test_action_metrics.py
    case.finish()


def given(arrays: Arrays, name: str) -> Tensor | None:
    return torch.from_numpy(arrays[name]) if name in arrays else None


@cases("action", "g_streams")
def test_streams(case: Case) -> None:
    arrays = case.arrays()
    points, score, expected = arrays["norm2d_in_xy"], arrays["norm2d_in_score"], arrays["norm2d_out"]
    size = image_size(points, expected)
    found = clip_preprocess("pyskl_2d").apply(points, score, size, skeleton="coco17")
    case.close("2D normalisation", found, expected, atol=1e-6)
    check_streams(case, arrays, "coco", found, "coco17")

    clip = clip_preprocess("pyskl_3d").apply(arrays["norm3d_in"], skeleton="ntu25")
    case.close("3D normalisation", clip, arrays["norm3d_out"], atol=1e-6)
    case.close("frames with a person", clip.shape[1], arrays["norm3d_total_frames"])
    check_streams(case, arrays, "ntu", clip, "ntu25")

    for name in arrays.names("uniform_test_"):
        found_name = re.fullmatch(r"uniform_test_T(\d+)_clips(\d+)", name)
        assert found_name, name
        frames, clips = int(found_name[1]), int(found_name[2])
        indices = motion.uniform_test_indices(frames, len(arrays[name]) // clips, clips)
        case.close(name, indices.ravel(), arrays[name])
    case.finish()


def check_streams(case: Case, arrays: Arrays, prefix: str, clip: np.ndarray, body: str) -> None:
    for short, name in STREAMS.items():
        scored = body == "coco17"
        made = stream(clip, name, skeleton(body), scored)
        case.close(f"{prefix} {name}", made, arrays[f"{prefix}_{short}"], atol=1e-6)
        on_device = stream(torch.from_numpy(clip), name, skeleton(body), scored)
        case.close(f"{prefix} {name} of a tensor", on_device, arrays[f"{prefix}_{short}"], atol=1e-6)


def image_size(points: np.ndarray, normalised: np.ndarray) -> tuple[int, int]:
    """Width and height that the numbers were normalised by; the case does not state them."""
    seen = (normalised[..., :2] != 0).any(-1)
    sides = 2 * points[seen] / (normalised[..., :2][seen] + 1)
    width, height = np.rint(np.median(sides, axis=0)).astype(int).tolist()
    return width, height


def elsewhere(arrays: Arrays, *prefixes: str) -> None:
    """Note arrays that a test of another file compares."""
    for prefix in prefixes:
        names = arrays.names(prefix)
        assert names, f"nothing is called {prefix}"
        for name in names:
            assert arrays[name].size, f"{name} is empty"
