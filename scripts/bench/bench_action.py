"""Action recognition: clips from the store to the network, and whole training steps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from kinema.core import motion, random
from kinema.core.clip_preprocess import clip_preprocess
from kinema.core.skeleton import Skeleton, skeleton
from kinema.data import orders
from kinema.data.draws import Draws
from kinema.data.sequences import Sequences
from kinema.data.transforms import resolve
from kinema.data.windows import Windows
from kinema.models.action_head import ActionNet
from kinema.models.dstformer import DSTformer
from kinema.models.stgcn import STGCN
from kinema.tasks import optim
from scripts.bench import reference_action as reference
from scripts.bench.measure import Pair
from scripts.bench.rows import bench
from scripts.bench.stores import BODY, distance, scatter

Batches = Callable[[], Iterator[tuple[Tensor, ...]]]
Clips = tuple[list[np.ndarray], list[int]]

_CROP = (0.8, 3.2)  # bounds of the fork's training crop
_PER_ITEM = "clip by clip in numpy, default collate"


def recorded(count: int, joints: int, classes: int, *, most: int, shortest: int, longest: int) -> Clips:
    """Wandering bodies (M, T, J, 3), of one person or more, and their classes; the first clip is the shortest."""
    generator = np.random.default_rng(0)
    clips = []
    for number in range(count):
        length = shortest if number == 0 else int(generator.integers(shortest, longest + 1))
        shape = (1 + number % most, length, joints, 3)
        way = generator.normal(size=(shape[0], length, 1, 3)).cumsum(1) * 0.01
        clips.append((way + generator.normal(scale=0.4, size=shape)).astype(np.float32))
    return clips, generator.integers(0, classes, count).tolist()


def stored(clips: list[np.ndarray], labels: list[int], body: Skeleton) -> Sequences:
    """Prepared clips as a reader of actions gives them: a row per person."""
    rows = [
        {"pose3d": track, "subject": "", "action": str(label), "clip": str(number), "person": person,
         "persons": len(clip), "label": label}
        for number, (clip, label) in enumerate(zip(clips, labels, strict=True))
        for person, track in enumerate(clip)
    ]  # fmt: skip
    return Sequences.from_arrays(rows, skeleton=body, skeleton2d=body)


class Ours:
    """Batches (pose, persons, label) of whole clips: one gather and the transforms per batch, in a shuffled order."""

    def __init__(self, windows: Windows, batch: int, transforms: list[Any], **given: Any) -> None:
        self.windows, self.batch = windows, batch
        self.functions = resolve(transforms, "augment", **given)

    def __call__(self) -> Iterator[tuple[Tensor, ...]]:
        sampler = orders.make("seeded", len(self.windows), self.batch, seed=0)
        for number, gathered in enumerate(DataLoader(self.windows, batch_size=None, sampler=sampler)):
            made = {**gathered, "pose": gathered.pop("pose3d")}
            draws = Draws(0, 0, made["draw"], torch.tensor([number]), training=True)
            for function in self.functions:
                made = function(made, draws)
            yield made["pose"], made["persons"], made["label"]


def by_row(drawn: Tensor, order: np.ndarray) -> np.ndarray:
    """What was drawn for positions of an order, for the rows that stand there."""
    out = np.empty(drawn.shape, np.float32)
    out[order] = drawn.numpy()
    return out


def micro_actions(clips: int, frames: int, batch: int, longest: int) -> tuple[Batches, Batches]:
    """MA-52 as the fork trains on it, with a second person who is not there; plain and ours."""
    raw, labels = recorded(clips, len(BODY), 52, most=1, shortest=1, longest=longest)
    prepared = [clip_preprocess("ma52_fork").apply(clip, skeleton=BODY) for clip in raw]
    windows = Windows.clips(
        stored(prepared, labels, BODY), frames, rule="random", persons=2, frozen=True, keys=("pose3d",)
    )
    transforms = [{"random_move": {}}, {"crop_scale": {"train": list(_CROP), "test": [2.0, 2.0]}}]
    ours = Ours(windows, batch, transforms, skeleton=BODY, preprocess="ma52_fork", has_3d=True)

    order, places = orders.seeded(clips, 0)(0), torch.arange(clips)
    low, high = _CROP
    items = reference.MicroActionClips(
        [clip[0] for clip in prepared],
        labels,
        frames,
        random.uniform(0, torch.zeros_like(places), places, "frames", (frames,)).numpy(),
        by_row(motion.drift_ranges(random.uniform(0, 0, places, "random_move", (4, 2))), order),
        by_row(low + (high - low) * random.uniform(0, 0, places, "crop_scale", ()), order),
    )
    return lambda: iter(DataLoader(items, batch_size=batch, sampler=order.tolist())), ours


def kinect(clips: int, frames: int, batch: int, longest: int) -> tuple[Batches, Batches]:
    """NTU RGB+D in 3D, one person or two, as PYSKL trains on it; plain and ours."""
    body = skeleton("ntu25")
    raw, labels = recorded(clips, len(body), 60, most=2, shortest=frames // 2, longest=longest)
    prepared = [clip_preprocess("pyskl_3d").apply(clip, skeleton=body) for clip in raw]
    windows = Windows.clips(stored(prepared, labels, body), frames, rule="uniform", persons=2, keys=("pose3d",))
    order, places = orders.seeded(clips, 0)(0), torch.arange(clips)
    drawn = random.uniform(0, torch.zeros_like(places), places, "frames", (motion.uniform_draws(frames),))
    items = reference.KinectClips(raw, labels, frames, by_row(drawn, order), dict(body.tables["prenormalise"]))
    return lambda: iter(DataLoader(items, batch_size=batch, sampler=order.tolist())), Ours(windows, batch, [])


def batches_differ(found: Batches, expected: Batches) -> float:
    """Largest difference of two streams of batches: poses and classes."""
    return max(
        distance((ours[0], theirs[0]), (ours[-1], theirs[-1])) for ours, theirs in zip(found(), expected(), strict=True)
    )


def build_data(*, source: str, clips: int, frames: int, batch: int, longest: int) -> Pair:
    """An epoch of training batches."""
    make = {"ma52": micro_actions, "ntu": kinect}[source]
    plain, ours = make(clips, frames, batch, longest)

    def run(batches: Batches) -> None:
        for _ in batches():
            pass

    return Pair(partial(run, plain), partial(run, ours), lambda: batches_differ(ours, plain))


_MA52_DATA = {"source": "ma52", "clips": 240, "frames": 243, "batch": 24, "longest": 300}
_NTU_DATA = {"source": "ntu", "clips": 320, "frames": 100, "batch": 16, "longest": 300}
_SMALL_DATA = {"clips": 7, "frames": 9, "batch": 3, "longest": 30}

bench(
    build_data,
    "action_data_ma52",
    operation="MA-52 training clips: frames, random move, crop",
    reference=_PER_ITEM,
    sizes=_MA52_DATA,
    small=_SMALL_DATA,
    bound=2,
    goal=3,
    tolerance=1e-5,
)
bench(
    build_data,
    "action_data_ntu",
    operation="NTU 3D training clips: upright, uniform frames, two persons",
    reference=_PER_ITEM,
    sizes=_NTU_DATA,
    small=_SMALL_DATA,
    bound=8,
    goal=14,
    tolerance=1e-5,
)


def action_net(*, frames: int, dim: int, depth: int, heads: int, hidden: int, mask_persons: bool) -> ActionNet:
    """The network of the MA-52 fork, without dropout: its draws would differ between the forms."""
    torch.manual_seed(0)
    backbone = DSTformer(
        num_frames=max(frames, 243), num_joints=17, in_channels=3, dim=dim, dim_rep=dim // 2, depth=depth,
        num_heads=heads, mlp_ratio=2, qkv_bias=True, att_fuse=True, dropout=0.0, attn_dropout=0.0, drop_path=0.0,
    )  # fmt: skip
    model = ActionNet(
        backbone=backbone, head="class", hidden=hidden, num_classes=52, dropout=0.0, groups=None, persons=2,
        mask_persons=mask_persons,
    )  # fmt: skip
    scatter(model)
    return model.train()


def graph_net(*, frames: int, dim: int, depth: int) -> STGCN:
    """ST-GCN++ for 25 joints and 60 classes, as published."""
    torch.manual_seed(0)
    model = STGCN(
        num_frames=frames, num_joints=25, in_channels=3, persons=2, num_classes=60, layout="nturgb+d", edges=None,
        graph_mode="spatial", max_hop=1, dim=dim, depth=depth, inflate_stages=[2] if depth < 8 else [5, 8],
        down_stages=None, width_ratio=2, data_norm="VC", gcn_adaptive="init", gcn_conv_pos="pre", gcn_with_res=True,
        tcn_type="mstcn", tcn_kernel=9, tcn_branches=[3, 3, 3, 3, "max", "1x1"], tcn_dilations=None,
        tcn_mid_fraction=None, tcn_dropout=0.0, dropout=0.0, mask_persons=False,
    )  # fmt: skip
    scatter(model)
    return model.train()


def training_pair(
    streams: tuple[Batches, Batches],
    model: nn.Module,
    plain: Callable[..., Tensor],
    recipe: Callable[..., torch.optim.Optimizer],
) -> Pair:
    """Training on the same clips from the same weights: item by item, plain network, optimiser as a loop, and ours.

    Equal are the batches, the logits of all of them, the losses of an epoch, and gradients of some frames in float64:
    in float32, rounding moves them by percents through the kinks and norms of many layers.
    """
    theirs = copy.deepcopy(model)
    loop = recipe(theirs.parameters(), fused=False, foreach=False)
    ours = optim.build(partial(recipe, fused=True), optim.parameter_groups(model, None))

    def old() -> list[Tensor]:
        return reference.train(streams[0](), partial(plain, theirs), loop)

    def new() -> list[Tensor]:
        return reference.train(streams[1](), model, ours)

    def gradients(forward: Callable[..., Tensor]) -> list[Tensor]:
        exact = copy.deepcopy(model).double()
        pose, persons, label = next(streams[1]())
        pose = pose[:2, :, :27].double()
        loss = nn.functional.cross_entropy(forward(exact, pose, persons[:2]), label[:2])
        return list(torch.autograd.grad(loss, [p for p in exact.parameters() if p.requires_grad]))

    def difference() -> float:
        with torch.no_grad():
            logits = [(model(pose, persons), plain(theirs, pose)) for pose, persons, _ in streams[1]()]
        pairs = zip(
            gradients(lambda exact, pose, persons: exact(pose, persons)),
            gradients(lambda exact, pose, persons: plain(exact, pose)),
            strict=True,
        )
        losses = torch.stack(new()), torch.stack(old())
        return max(batches_differ(streams[1], streams[0]), distance(*logits, *pairs, losses))

    return Pair(old, new, difference)


def build_ma52(
    *, clips: int, frames: int, batch: int, longest: int, dim: int, depth: int, heads: int, hidden: int, present: bool
) -> Pair:
    """Steps of the MA-52 network; `present`: the mean is over the persons who are there, in both forms."""
    model = action_net(frames=frames, dim=dim, depth=depth, heads=heads, hidden=hidden, mask_persons=present)
    there = torch.tensor([[1.0, 0.0]]) if present else None
    recipe = partial(torch.optim.AdamW, lr=1e-5, weight_decay=0.1)
    return training_pair(
        micro_actions(clips, frames, batch, longest), model, partial(reference.action_net, persons=there), recipe
    )


_MA52 = {"clips": 2, "frames": 243, "batch": 2, "longest": 300, "dim": 192, "depth": 2, "heads": 4, "hidden": 2048}
_SMALL_MA52 = {"clips": 5, "frames": 9, "batch": 3, "longest": 30, "dim": 16, "heads": 2, "hidden": 8}

bench(
    build_ma52,
    "action_ma52_step",
    operation="MA-52 network, T 243: clips and training steps",
    reference=f"{_PER_ITEM}; softmax attention; AdamW as a loop",
    sizes={**_MA52, "present": False},
    small=_SMALL_MA52,
    bound=0.95,
    goal=1.05,
    tolerance=1e-4,
    rounds=3,
)
bench(
    build_ma52,
    "action_ma52_present",
    operation="MA-52 network, mean over the persons who are there",
    reference="absent persons computed and left out of the mean",
    sizes={**_MA52, "present": True},
    small=_SMALL_MA52,
    bound=1.7,
    goal=2.1,
    tolerance=1e-4,
    rounds=3,
)


def build_stgcnpp(*, clips: int, frames: int, batch: int, longest: int, dim: int, depth: int) -> Pair:
    """Steps of ST-GCN++; half of the clips have a second person, and the mean is over both, as published."""
    model = graph_net(frames=frames, dim=dim, depth=depth)
    recipe = partial(torch.optim.SGD, lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    return training_pair(kinect(clips, frames, batch, longest), model, reference.stgcn, recipe)


bench(
    build_stgcnpp,
    "stgcnpp_step",
    operation="ST-GCN++, 25 joints, T 100: clips and training steps",
    reference=f"{_PER_ITEM}; every branch alone; SGD as a loop",
    sizes={"clips": 8, "frames": 100, "batch": 4, "longest": 300, "dim": 64, "depth": 10},
    small={"clips": 5, "frames": 9, "batch": 3, "longest": 30, "dim": 12, "depth": 3},
    bound=1.2,
    goal=1.4,
    tolerance=1e-3,  # of the second loss, behind a step
    rounds=3,
)
