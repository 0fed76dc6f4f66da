"""Windows and orders against the batches of VideoPose3D's chunked and unchunked generators."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from kinema.core.skeleton import Skeleton
from kinema.data.orders import LEGACY_SEED, Order, legacy, sequential
from kinema.data.sequences import Sequences
from kinema.data.windows import SEQUENCE, START, VIEW, Windows
from tests.parity.golden import Arrays, Case, cases

pytestmark = pytest.mark.parity


def _skeleton(joints: int, left: list[int], right: list[int]) -> Skeleton:
    names = tuple(f"joint{i}" for i in range(joints))
    return Skeleton("generator", names, (-1,) + (0,) * (joints - 1), tuple(left), tuple(right))


def _sequences(arrays: Arrays, config: dict) -> Sequences:
    numbers = sorted(int(name.removeprefix("seq2d_")) for name in arrays.names("seq2d_"))
    items = [
        {"pose2d": arrays[f"seq2d_{i}"], "pose3d": arrays[f"seq3d_{i}"], "intrinsics": arrays[f"seqcam_{i}"]}
        for i in numbers
    ]
    sequences = Sequences.from_arrays(
        items,
        skeleton=_skeleton(items[0]["pose3d"].shape[1], config["joints_left"], config["joints_right"]),
        skeleton2d=_skeleton(items[0]["pose2d"].shape[1], config["kps_left"], config["kps_right"]),
    )
    np.testing.assert_array_equal(sequences.table["length"], arrays["lens"])
    return sequences


_BATCH_NAMES = {"2d": "pose2d", "3d": "pose3d", "cam": "intrinsics"}


def _check_config(case: Case, arrays: Arrays, sequences: Sequences, config: dict) -> None:
    name = config["name"]
    pad, shift = config["pad"], config["causal_shift"]
    windows = Windows.chunked(
        sequences,
        config["chunk_length"],
        context=(pad + shift, pad - shift),
        both_views=config["augment"],
        keys=tuple(_BATCH_NAMES.values()) if config["cams"] else ("pose2d", "pose3d"),
    )
    first = windows.table[:, START]
    pairs = np.stack([windows.table[:, SEQUENCE], first, first + windows.targets, windows.table[:, VIEW]], axis=1)
    case.close(f"{name}_pairs", pairs, arrays[f"{name}_pairs"])

    make = legacy if config["shuffle"] else sequential
    seed = config.get("random_seed", LEGACY_SEED)
    order = Order(make(len(windows), seed), len(windows), config["batch_size"])
    case.close(f"{name}_num_batches", len(order), arrays[f"{name}_num_batches"])
    case.close(f"{name}_num_frames", len(order) * config["batch_size"], arrays[f"{name}_num_frames"])
    epochs = sorted(
        {int(found.group(1)) for key in arrays.names(f"{name}_ep") if (found := re.search(r"_ep(\d+)_", key))}
    )
    for epoch in epochs:
        order.set_epoch(epoch)
        picks = list(order)
        prefix = f"{name}_ep{epoch}_"
        case.close(prefix + "batch_sizes", [len(pick) for pick in picks], arrays[prefix + "batch_sizes"])
        if config["shuffle"]:
            case.close(prefix + "order", torch.cat(picks)[:, 2], arrays[prefix + "order"])
        batches = [windows[pick] for pick in picks]
        for short, key in _BATCH_NAMES.items():
            if key in windows.keys:
                case.close(prefix + short, torch.cat([batch[key] for batch in batches]), arrays[prefix + short])


@cases("poseformer", "generator")
def test_batches_of_both_generators(case: Case) -> None:
    config, arrays = case.json(), case.arrays()
    sequences = _sequences(arrays, config)
    for one in config["configs"]:
        for stored in (sequences, sequences.with_mirror()):
            _check_config(case, arrays, stored, one)

    whole = config["unchunked"]
    context = (whole["pad"] + whole["causal_shift"], whole["pad"] - whole["causal_shift"])
    keys = tuple(_BATCH_NAMES.values())
    windows = Windows.whole(sequences, context=context, both_views=whole["augment"], keys=keys)
    views = 2 if whole["augment"] else 1
    for row in sorted(int(name[1:-3]) for name in arrays.names("u") if re.fullmatch(r"u\d+_2d", name)):
        batch = windows[torch.tensor([[0, 0, row * views + view] for view in range(views)])]
        for short, key in _BATCH_NAMES.items():
            case.close(f"u{row}_{short}", batch[key], arrays[f"u{row}_{short}"])

    causal = config["unchunked_causal"]
    context = (causal["pad"] + causal["causal_shift"], causal["pad"] - causal["causal_shift"])
    windows = Windows.whole(sequences, context=context, keys=keys)
    batch = windows[torch.tensor([[0, 0, causal["sequence"]]])]
    case.close("ucausal_2d", batch["pose2d"], arrays["ucausal_2d"])
    case.finish()
