"""NTU RGB+D from the published containers to network input: clips, labels, splits, one-shot classes, frames, crop."""

from __future__ import annotations

import random
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kinema.composition import compose, make
from kinema.core.clip_preprocess import clip_preprocess
from kinema.core.crop import crop_scale
from kinema.core.keypoints import coco_to_h36m
from kinema.core.motion import drift, drift_ranges, repair_identities, resample_legacy, resample_random
from kinema.core.preprocess import preprocess
from kinema.data import ntu
from kinema.data.action import ActionDataModule
from kinema.data.sequences import Sequences
from tests.parity.golden import Arrays, Case, cases

pytestmark = pytest.mark.parity

_SPLIT = re.compile(r"(?P<benchmark>[a-z]+)_(?P<part>train|val)_n(?P<frames>\d+)_names")


def module(case: Case, dataset: str, file: str, **changes: Any) -> ActionDataModule:
    """A data set of the repository over a file of the case."""
    config = compose([f"dataset={dataset}", "task=action"])
    config.dataset.update({"root": str(case.path), "cache_dir": None, **changes})
    config.dataset.reader_options.file = case.file(file).name
    data: ActionDataModule = make(config.dataset)
    return data


def clips(store: Sequences, split: str) -> list[int]:
    """Rows of the first persons of a split's clips, in the order of the file."""
    return np.flatnonzero((store.table["split"] == split) & (store.table["person"] == 0)).tolist()


def evaluated(data: ActionDataModule, names: list[str], wanted: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Frames and network input of test clips in the given order, as the loader gives them."""
    raw, cooked = np.full(wanted, np.nan), np.full(wanted, np.nan)
    windows = data.windows("test")
    assert windows is not None
    of_row = windows.sequences.table["clip"][windows.table[:, 0]]
    for batch in data.test_dataloader():
        done = data.transform(dict(batch))
        for index, before, after in zip(batch["index"].tolist(), batch["pose2d"], done["pose"], strict=True):
            if index >= 0:
                place = names.index(str(of_row[index]))
                raw[place], cooked[place] = before.numpy(), after.numpy()
    return raw, cooked


def chosen(store: Sequences, row: int, indices: np.ndarray) -> np.ndarray:
    """Frames (2, T, 17, 3) of a clip, zeros for a person who is not there: published behaviour."""
    persons = int(store.table["persons"][row])
    motion = np.zeros((2, len(indices), 17, 3), np.float32)
    for person in range(persons):
        motion[person] = store.sequence(row + person)["pose2d"][indices]
    return motion


@cases("action", "c_ntu")
def test_ntu(case: Case) -> None:
    arrays = case.arrays()
    file = next(path.name for path in sorted(case.path.glob("ntu60*.pkl")))
    found = [match for name in arrays if (match := _SPLIT.fullmatch(name))]
    assert {match["part"] for match in found} == {"train", "val"}
    for match in found:
        prefix, frames = match[0].removesuffix("_names"), int(match["frames"])
        data = module(case, "ntu60_compat", file, protocol=match["benchmark"], frames=frames)
        split = "train" if match["part"] == "train" else "test"
        store = data.sequences
        rows = clips(store, split)
        names = store.table["clip"][rows].tolist()
        with case.check(f"{prefix}: clips"):
            assert names == arrays[match[0]].tolist()
        if f"{prefix}_labels" in arrays:
            case.close(f"{prefix}: labels", store.table["label"][rows], arrays[f"{prefix}_labels"])
        wanted = arrays[f"{prefix}_motions"]
        if split == "test":
            motions, items = evaluated(data, names, wanted.shape)
            case.close(f"{prefix}: cropped", items, arrays[f"{prefix}_items_scale2"], atol=2e-5)
        else:
            motions = np.stack(
                [chosen(store, row, _drawn(store, row, frames, arrays, f"{prefix}_draw_")) for row in rows]
            )
            case.close(f"{prefix}: items", motions, arrays[f"{prefix}_items_no_crop"], atol=1e-6)
        case.close(f"{prefix}: motions", motions, wanted, atol=1e-6)
    _check_steps(case, arrays)
    _check_auxiliary(case)
    case.finish()


def _drawn(store: Sequences, row: int, frames: int, arrays: Arrays, prefix: str) -> np.ndarray:
    """Frames of a training clip by the draws of the file."""
    length, clip = int(store.table["length"][row]), store.table["clip"][row]
    kind = "randint" if length < frames else "random"
    return resample_random(length, frames, arrays[f"{prefix}{kind}__{clip}"])


def _check_steps(case: Case, arrays: Arrays) -> None:
    """The stages of the preparation, and the whole of it."""
    for prefix in [name.removesuffix("_in") for name in arrays if name.startswith("step") and name.endswith("_in")]:
        points, (height, width) = arrays[f"{prefix}_in"], arrays[f"{prefix}_img_shape"].tolist()
        image = preprocess("motionbert_action").to_network(points, width, height)
        case.close(f"{prefix}: image", image, arrays[f"{prefix}_make_cam"])
        tracked = repair_identities(image)
        case.close(f"{prefix}: identities", tracked, arrays[f"{prefix}_tracking"])
        way = clip_preprocess("ntu_compat")
        whole = way.apply(points, np.ones(points.shape[:3], points.dtype), (width, height), skeleton="coco17")
        case.close(f"{prefix}: joints", whole[..., :2], arrays[f"{prefix}_h36m"], atol=1e-6)
    upright = preprocess("motionbert_action").to_network(arrays["portrait_in"], 1080, 1920)
    case.close("portrait", upright, arrays["portrait_make_cam"])
    case.close("joints", coco_to_h36m(arrays["coco2h36m_in64"]), arrays["coco2h36m_out64"], atol=1e-15)


def _check_auxiliary(case: Case) -> None:
    """The auxiliary classes of the one-shot benchmark, cut from a container of all classes."""
    arrays = case.arrays("case_oneshot_aux.npz")
    file = next(path.name for path in sorted(case.path.glob("ntu120*.pkl")))
    table = arrays["old2new"]
    case.close("old2new", ntu.auxiliary_labels(table[:, 0]), table[:, 1])
    with case.check("all classes"):
        assert sorted({*table[:, 0].tolist(), *ntu.NOVEL_LABELS}) == list(range(2 * ntu.CLASSES))
    wanted = arrays["items_scale2"]
    data = module(case, "ntu120_oneshot_compat", file, frames=wanted.shape[2])
    options = dict(data.source.options)
    faults: list[Exception] = []
    store = data.source.module.read(case.path, report=faults.append, **options)
    with case.check("a container without exemplars is told"):
        present = set(store.table["clip"].tolist())
        assert len(faults) == (0 if present >= set(ntu.EXEMPLARS) else 1)
    rows = clips(store, "train")
    with case.check("kept clips"):
        assert store.table["clip"][rows].tolist() == arrays["kept_names"].tolist()
    case.close("old labels", store.table["label"][rows], arrays["old_labels"])
    case.close("new labels", store.table["auxiliary"][rows], arrays["new_labels"])
    for row in np.flatnonzero(store.table["person"] == 0).tolist():  # those of novel classes are drawn and not used
        _drawn(store, row, wanted.shape[2], arrays, "draw_")
    motions = np.stack([chosen(store, row, _drawn(store, row, wanted.shape[2], arrays, "draw_")) for row in rows])
    items = data.transform({"pose2d": torch.from_numpy(motions), **_of(len(motions))})["pose"]
    case.close("items", items, wanted, atol=2e-5)


def _of(count: int) -> dict[str, Tensor]:
    """What else a batch of clips holds."""
    return {
        "draw": torch.arange(count),
        "index": torch.arange(count),
        "persons": torch.ones(count, 2, dtype=torch.bool),
    }


@cases("motionbert", "ntu")
def test_ntu_of_motionbert(case: Case) -> None:
    """Data of both containers; embeddings and network are checked by the other tests of actions."""
    arrays, frames = case.arrays(), int(case.json()["n_frames"])
    data = module(case, "ntu60_compat", "ntu60_hrnet.pkl", frames=frames)
    store = data.sequences
    rows = clips(store, "test")
    motions, items = evaluated(data, store.table["clip"][rows].tolist(), arrays["val_motions"].shape)
    case.close("labels", store.table["label"][rows], arrays["val_labels"])
    case.close("motions", motions, arrays["val_motions"], atol=1e-6)
    case.close("items", items, arrays["val_items_scale2"], atol=1e-6)
    _check_training(case, store, frames)
    exemplars = module(case, "ntu120_oneshot_compat", "ntu120_hrnet_oneshot.pkl", frames=frames).sequences
    for split, part in (("exemplar", "anchor"), ("query", "test")):
        labels = exemplars.table["label"][clips(exemplars, split)]
        case.close(f"one-shot, {split}", labels, arrays[f"{part}_labels"])
    auxiliary = ntu.auxiliary_labels(arrays["aux_labels_in"])
    case.close("auxiliary", auxiliary[auxiliary >= 0], arrays["aux_labels_remapped"])
    for name in ("anchor_feats", "test_feats", "oneshot_pred", "oneshot_acc"):
        arrays.unread.discard(name)
    case.file("best_epoch.bin")
    case.finish()


def _check_training(case: Case, store: Sequences, frames: int) -> None:
    """Training clips with the published generators: frames drawn once, then moved in place and cropped."""
    arrays = case.arrays()
    rows = clips(store, "train")
    case.close("training labels", store.table["label"][rows], arrays["train_labels"])
    generator = np.random.RandomState(0)
    indices = [resample_legacy(int(store.table["length"][row]), frames, generator) for row in rows]
    motions = np.stack([chosen(store, row, index) for row, index in zip(rows, indices, strict=True)])
    case.close("training frames", motions, arrays["train_motions_npseed0"], atol=1e-6)
    for name in arrays.names("train_items_seed"):
        seed = int(name.removeprefix("train_items_seed"))
        random.seed(seed)
        draws = np.random.RandomState(seed)
        moved, items = [], []
        for motion in torch.from_numpy(motions):
            random.choice([1])  # the published program draws its only number of segments
            unit = torch.from_numpy(draws.random_sample((4, 2)))
            moved.append(drift(motion.double(), drift_ranges(unit)).float())
            items.append(crop_scale(moved[-1], torch.tensor(draws.uniform(1, 3))))
        case.close(name, torch.stack(items), arrays[name], atol=1e-6)
        case.close("moved in place", torch.stack(moved), arrays["train_motions_after_items"], atol=1e-6)
