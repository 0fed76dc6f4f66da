"""NTU RGB+D from the published containers to network input: clips, labels, splits, one-shot classes, frames, crop."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from kinema.composition import compose, make
from kinema.core.clip_preprocess import clip_preprocess
from kinema.core.crop import crop_scale
from kinema.core.keypoints import coco_to_h36m
from kinema.core.motion import drift, drift_ranges, repair_identities, resample_legacy, resample_random
from kinema.core.preprocess import preprocess
from kinema.data import ntu
from kinema.data.action import ActionDataModule
from kinema.data.safe_pickle import load_pickle
from kinema.data.sequences import Sequences
from tests.parity.golden import Arrays, Case, cases

pytestmark = pytest.mark.parity

_SPLIT = re.compile(r"(?P<prefix>(?P<benchmark>[a-z]+)_(?P<part>train|val)_n(?P<frames>\d+)_)names")
# Motions, and what follows from them by single precision.
_EXACT, _CROPPED = 1e-6, 2e-5

Container = dict[str, Any]


def containers(case: Case) -> dict[str, Container]:
    """The containers of a case by the names of their files."""
    return {path.name: load_pickle(case.file(path.name)) for path in sorted(case.path.glob("*.pkl"))}


def file_where(case: Case, holds: Callable[[Container], bool]) -> str:
    """The first container of a case that holds something."""
    return next(name for name, content in containers(case).items() if holds(content))


def names_of(content: Container) -> set[str]:
    return {annotation["frame_dir"] for annotation in content["annotations"]}


def module(case: Case, dataset: str, file: str, *, ratio: float | None = None, **changes: Any) -> ActionDataModule:
    """A data set of the repository over a file of the case; with a ratio, all clips get a box of this size."""
    config = compose([f"dataset={dataset}", "task=action"])
    config.dataset.update({"root": str(case.path), "cache_dir": None, **changes})
    config.dataset.reader_options.file = file
    if ratio is not None:
        config.dataset.transforms = [{"crop_scale": {"train": [ratio, ratio], "test": [ratio, ratio]}}]
    data: ActionDataModule = make(config.dataset)
    return data


def benchmark(case: Case, file: str, name: str, frames: int, ratio: float | None = None) -> ActionDataModule:
    """A benchmark of a full container, of 60 classes or of 120, as MotionBERT reads it."""
    most = max(annotation["label"] for annotation in containers(case)[file]["annotations"])
    number = ntu.CLASSES if most < ntu.CLASSES else 2 * ntu.CLASSES
    changes = {"protocol": name, "frames": frames, "classes": f"ntu{number}", "num_classes": number}
    return module(case, "ntu60_compat", file, ratio=ratio, **changes)


def clips(store: Sequences, split: str) -> list[int]:
    """Rows of the first persons of a split's clips, in the order of the file."""
    return np.flatnonzero((store.table["split"] == split) & (store.table["person"] == 0)).tolist()


def evaluated(data: ActionDataModule, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Frames and network input of the test clips in the order of the file, as the loader gives them."""
    raw, cooked = np.full(shape, np.nan), np.full(shape, np.nan)
    store, windows = data.sequences, data.windows("test")
    assert windows is not None
    names = store.table["clip"][clips(store, "test")].tolist()
    of_row = windows.sequences.table["clip"][windows.table[:, 0]]
    for batch in data.test_dataloader():
        done = data.transform(dict(batch))
        for index, before, after in zip(batch["index"].tolist(), batch["pose2d"], done["pose"], strict=True):
            if index >= 0:
                place = names.index(str(of_row[index]))
                raw[place], cooked[place] = before.numpy(), after.numpy()
    return raw, cooked


def chosen(store: Sequences, rows: Sequence[int], indices: Sequence[np.ndarray], persons: int) -> np.ndarray:
    """Frames (N, M, T, 17, 3) of clips, zeros for a person who is not there: published behaviour."""
    motions = np.zeros((len(rows), persons, len(indices[0]), 17, 3), np.float32)
    for motion, row, frames in zip(motions, rows, indices, strict=True):
        for person in range(int(store.table["persons"][row])):
            motion[person] = store.sequence(row + person)["pose2d"][frames]
    return motions


def drawn(store: Sequences, rows: Sequence[int], count: int, arrays: Arrays, prefix: str) -> list[np.ndarray]:
    """Frames of training clips by the draws of the file."""
    indices = []
    for row in rows:
        (draws,) = (name for name in arrays.names(prefix) if name.endswith(f"__{store.table['clip'][row]}"))
        indices.append(resample_random(int(store.table["length"][row]), count, arrays[draws]))
    return indices


def cropped(data: ActionDataModule, motions: np.ndarray) -> np.ndarray:
    """Network input of clips."""
    batch = {
        "pose2d": torch.from_numpy(motions),
        "draw": torch.arange(len(motions)),
        "index": torch.arange(len(motions)),
        "persons": torch.ones(motions.shape[:2], dtype=torch.bool),
    }
    return data.transform(batch)["pose"].numpy()


def items(arrays: Arrays, prefix: str) -> list[tuple[str, float | None]]:
    """Names of arrays of network input, with the size of the box; None where nothing is cropped."""
    found = [(name, name.removeprefix(f"{prefix}items_")) for name in arrays.names(f"{prefix}items_")]
    return [(name, None if how == "no_crop" else float(how.removeprefix("scale"))) for name, how in found]


def check_tested(
    case: Case, arrays: Arrays, prefix: str, opened: Callable[[float | None], ActionDataModule], tolerance: float
) -> None:
    """Test clips: evenly spread frames, and boxes of a given size."""
    data, wanted = opened(None), arrays[f"{prefix}motions"]
    rows = clips(data.sequences, "test")
    if f"{prefix}labels" in arrays:
        case.close(f"{prefix}labels", data.sequences.table["label"][rows], arrays[f"{prefix}labels"])
    with case.check(f"{prefix}motions: clips"):
        assert len(rows) == len(wanted)
        motions, _ = evaluated(data, wanted.shape)
        case.close(f"{prefix}motions", motions, wanted, atol=_EXACT)
        for name, ratio in items(arrays, prefix):
            raw, boxed = evaluated(opened(ratio), wanted.shape)
            case.close(name, raw if ratio is None else boxed, arrays[name], atol=tolerance)


def check_trained(
    case: Case, arrays: Arrays, prefix: str, store: Sequences, opened: Callable[[float | None], ActionDataModule]
) -> None:
    """Training clips, their frames by the draws of the file."""
    data, rows = opened(None), clips(store, "train")
    assert data.frames is not None
    motions = chosen(store, rows, drawn(store, rows, data.frames, arrays, f"{prefix}draw_"), data.persons)
    if f"{prefix}motions" in arrays:
        case.close(f"{prefix}motions", motions, arrays[f"{prefix}motions"], atol=_EXACT)
    if f"{prefix}labels" in arrays:
        case.close(f"{prefix}labels", store.table["label"][rows], arrays[f"{prefix}labels"])
    for name, ratio in items(arrays, prefix):
        found = motions if ratio is None else cropped(opened(ratio), motions)
        case.close(name, found, arrays[name], atol=_EXACT if ratio is None else _CROPPED)


@cases("action", "c_ntu")
def test_ntu(case: Case) -> None:
    found: set[str] = set()
    for path in sorted(case.path.glob("*.npz")):
        arrays = case.arrays(path.name)
        if "old2new" in arrays:
            check_auxiliary(case, arrays)
            continue
        for match in filter(None, map(_SPLIT.fullmatch, arrays)):
            found.add(match["part"])
            check_benchmark(case, arrays, match)
        check_steps(case, arrays)
    assert found == {"train", "val"}
    case.finish()


def check_benchmark(case: Case, arrays: Arrays, match: re.Match[str]) -> None:
    prefix, frames, names = match["prefix"], int(match["frames"]), arrays[match[0]].tolist()
    split = f"{match['benchmark']}_{match['part']}"
    file = file_where(case, lambda content: split in content["split"] and names_of(content) >= set(names))

    def opened(ratio: float | None) -> ActionDataModule:
        return benchmark(case, file, match["benchmark"], frames, ratio)

    store = opened(None).sequences
    with case.check(f"{prefix}names"):
        part = "train" if match["part"] == "train" else "test"
        assert store.table["clip"][clips(store, part)].tolist() == names
    if match["part"] == "train":
        check_trained(case, arrays, prefix, store, opened)
    else:
        check_tested(case, arrays, prefix, opened, _CROPPED)


def check_steps(case: Case, arrays: Arrays) -> None:
    """The stages of the preparation, and the whole of it."""
    steps = [name.removesuffix("in") for name in arrays if name.startswith("step") and name.endswith("_in")]
    for prefix in steps:
        points, (height, width) = arrays[f"{prefix}in"], arrays[f"{prefix}img_shape"].tolist()
        image = preprocess("motionbert_action").to_network(points, width, height)
        case.close(f"{prefix}make_cam", image, arrays[f"{prefix}make_cam"])
        tracked = repair_identities(image).astype(np.float64)
        case.close(f"{prefix}tracking", tracked, arrays[f"{prefix}tracking"])
        case.close(f"{prefix}h36m", coco_to_h36m(tracked), arrays[f"{prefix}h36m"])
        way = clip_preprocess("ntu_compat")
        whole = way.apply(points, np.ones(points.shape[:3], points.dtype), (width, height), skeleton="coco17")
        case.close(f"{prefix}h36m of the whole way", whole[..., :2], arrays[f"{prefix}h36m"], atol=1e-6)
    if "portrait_in" in arrays:
        height, width = image_shape(case, arrays["portrait_in"])
        upright = preprocess("motionbert_action").to_network(arrays["portrait_in"], width, height)
        case.close("portrait_make_cam", upright, arrays["portrait_make_cam"])
    for name in arrays.names("coco2h36m_in"):
        converted = coco_to_h36m(arrays[name])
        case.close(name, converted, arrays[name.replace("_in", "_out")], atol=1e-15)


def image_shape(case: Case, points: np.ndarray) -> tuple[int, int]:
    """Height and width of the image of a clip that begins with these points."""
    shapes = {
        tuple(annotation["img_shape"])
        for content in containers(case).values()
        for annotation in content["annotations"]
        if np.array_equal(annotation["keypoint"][:, : points.shape[1]], points)
    }
    ((height, width),) = shapes
    return height, width


def check_auxiliary(case: Case, arrays: Arrays) -> None:
    """The auxiliary classes of the one-shot benchmark, cut from a container of all classes."""
    table, kept = arrays["old2new"], arrays["kept_names"].tolist()
    case.close("old2new", ntu.auxiliary_labels(table[:, 0]), table[:, 1])
    with case.check("all classes"):
        assert sorted({*table[:, 0].tolist(), *ntu.NOVEL_LABELS}) == list(range(2 * ntu.CLASSES))
    file = file_where(case, lambda content: names_of(content) >= set(kept))
    count = arrays[items(arrays, "")[0][0]].shape[2]

    def opened(ratio: float | None) -> ActionDataModule:
        return module(case, "ntu120_oneshot_compat", file, frames=count, ratio=ratio)

    data = opened(None)
    faults: list[Exception] = []
    store = data.source.module.read(case.path, report=faults.append, **data.source.options)
    with case.check("exemplars that are missing for a class that is asked for are told, once"):
        assert len(faults) == missing_exemplars(containers(case)[file])
    rows = clips(store, "train")
    with case.check("kept clips"):
        assert store.table["clip"][rows].tolist() == kept
    case.close("old labels", store.table["label"][rows], arrays["old_labels"])
    case.close("new labels", store.table["auxiliary"][rows], arrays["new_labels"])
    check_trained(case, arrays, "", store, opened)
    # Frames of the clips of novel classes were drawn, too, and not used.
    novel = [row for split in ("exemplar", "query") for row in clips(store, split)]
    with case.check("draws of clips that are not kept"):
        assert all(len(frames) == count for frames in drawn(store, novel, count, arrays, "draw_"))


def missing_exemplars(content: Container) -> int:
    """1 if a container asks for a class whose exemplar it does not have, else 0."""
    labels = {annotation["frame_dir"]: annotation["label"] for annotation in content["annotations"]}
    queried = {label for name, label in labels.items() if name not in ntu.EXEMPLARS}
    absent = {label for name, label in zip(ntu.EXEMPLARS, ntu.NOVEL_LABELS, strict=True) if name not in labels}
    return int(bool(absent & queried))


@cases("motionbert", "ntu")
def test_ntu_of_motionbert(case: Case) -> None:
    """Data of both containers; embeddings and network are checked by the other tests of actions."""
    arrays, frames = case.arrays(), int(case.json()["n_frames"])
    file = file_where(case, lambda content: "xsub_val" in content["split"])

    def opened(ratio: float | None) -> ActionDataModule:
        return benchmark(case, file, "xsub", frames, ratio)

    check_tested(case, arrays, "val_", opened, _EXACT)
    check_published_training(case, arrays, opened(None), frames)
    file = file_where(case, lambda content: "oneshot_val" in content["split"])
    exemplars = module(case, "ntu120_oneshot_compat", file, frames=frames).sequences
    for split, part in (("exemplar", "anchor"), ("query", "test")):
        labels = exemplars.table["label"][clips(exemplars, split)]
        case.close(f"one-shot, {split}", labels, arrays[f"{part}_labels"])
    auxiliary = ntu.auxiliary_labels(arrays["aux_labels_in"])
    case.close("auxiliary", auxiliary[auxiliary >= 0], arrays["aux_labels_remapped"])
    for name in ("anchor_feats", "test_feats", "oneshot_pred", "oneshot_acc"):
        arrays.unread.discard(name)
    for path in case.path.glob("*.bin"):
        case.file(path.name)
    case.finish()


def check_published_training(case: Case, arrays: Arrays, data: ActionDataModule, frames: int) -> None:
    """Training clips with the published generators: frames drawn once, then moved in place and cropped."""
    store = data.sequences
    rows = clips(store, "train")
    case.close("training labels", store.table["label"][rows], arrays["train_labels"])
    (name,) = arrays.names("train_motions_npseed")
    generator = np.random.RandomState(int(name.removeprefix("train_motions_npseed")))
    indices = [resample_legacy(int(store.table["length"][row]), frames, generator) for row in rows]
    motions = chosen(store, rows, indices, data.persons)
    case.close(name, motions, arrays[name], atol=_EXACT)
    (name,) = arrays.names("train_items_seed")
    seed = int(name.removeprefix("train_items_seed"))
    random.seed(seed)
    draws = np.random.RandomState(seed)
    moved, boxed = [], []
    for motion in torch.from_numpy(motions):
        random.choice([1])  # the published program draws its only number of segments
        unit = torch.from_numpy(draws.random_sample((4, 2)))
        moved.append(drift(motion.double(), drift_ranges(unit)).float())
        boxed.append(crop_scale(moved[-1], torch.tensor(draws.uniform(1, 3))))
    case.close(name, torch.stack(boxed), arrays[name], atol=_EXACT)
    case.close("moved in place", torch.stack(moved), arrays["train_motions_after_items"], atol=_EXACT)
