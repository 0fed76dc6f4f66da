"""Motion prediction around the network: the numbers of a test, training windows, memory of a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from kinema.core.motion_metrics import Groups, prediction_errors
from kinema.core.motion_space import MotionSpace
from kinema.data import motion_orders, motion_windows, orders
from kinema.data.draws import Draws
from kinema.data.motion_transforms import SIGNS, TURN
from kinema.data.sequences import Sequences
from kinema.data.transforms import resolve
from kinema.inference.motion_sampler import MotionSampler
from kinema.protocols.prediction import PredictionProtocol
from scripts.bench import reference_diffusion as reference
from scripts.bench.bench_diffusion import FEATURES, SMALL_NET, WINDOW, network
from scripts.bench.measure import Pair
from scripts.bench.rows import bench
from scripts.bench.stores import BODY, as_after_a_network, distance


def build_metrics(*, windows: int, samples: int, horizon: int, group: int, pool: int) -> Pair:
    """The five numbers of every window; relative differences, also with samples 1e-4 from a true future and from each
    other, where products of matrices lose all digits.
    """
    as_after_a_network()
    generator = torch.Generator().manual_seed(0)
    futures = torch.randn(pool, horizon, FEATURES, generator=generator)
    noise = torch.randn(windows, samples, horizon, FEATURES, generator=generator)
    far, near = futures[:windows, None] + 0.5 * noise, futures[:windows, None] + 1e-4 * noise
    members = torch.stack([((torch.arange(group) + row) % pool).sort().values for row in range(pool)])
    groups = Groups(members.flatten(), torch.arange(0, pool * group + 1, group))
    rows = torch.arange(windows)
    names = ("apd", "ade", "fde", "mmade", "mmfde")

    def plain(samples: Tensor = far) -> Tensor:
        return torch.stack([
            reference.prediction_errors(samples[row], futures[row], futures[members[row]]) for row in rows
        ])  # fmt: skip

    def ours(samples: Tensor = far) -> Tensor:
        found = prediction_errors(samples, futures, groups, rows)
        return torch.stack([found[name] for name in names], dim=1)

    def difference() -> float:
        # The first window's first sample is the truth itself: exactly zero in both forms.
        exact = near.clone()
        exact[0, 0] = futures[0]
        gaps = []
        for case in (far, near, exact):
            found, expected = ours(case).double(), plain(case).double()
            gaps.append(((found - expected).abs() / expected.clamp_min(1e-12)).max())
        return float(torch.stack(gaps).max())

    return Pair(plain, ours, difference)


for _group, _bound, _goal in ((50, 4.0, 5.0), (5, 0.95, 1.05)):
    bench(
        build_metrics,
        f"multimodal_metrics_{_group}",
        operation=f"five numbers of 20 windows x 50 samples, groups of {_group}",
        reference="difference of every sample to every future",
        sizes={"windows": 20, "samples": 50, "horizon": 100, "group": _group, "pool": 60},
        small={"windows": 3, "samples": 4, "horizon": 7, "group": min(_group, 6), "pool": 8},
        bound=_bound,
        goal=_goal,
        tolerance=1e-5,
    )


def recorded(subjects: int, trials: int, length: int) -> Sequences:
    """People wandering about a room, trials of different lengths."""
    random = np.random.default_rng(0)
    items = []
    for number in range(subjects * trials):
        frames = int(random.integers(length // 2, length * 3 // 2))
        root = random.normal(size=(frames, 1, 3)).cumsum(0) * 0.005
        pose = root + random.normal(scale=0.3, size=(frames, len(BODY), 3))
        person, trial = divmod(number, trials)
        items.append({"pose3d": pose.astype(np.float32), "subject": f"S{person}", "action": f"trial {trial}"})
    return Sequences.from_arrays(items, skeleton=BODY, space="world")


def relative_to_root(store: Sequences) -> reference.Recordings:
    """What the published program makes of the recordings when it reads them."""
    made: dict[str, dict[str, np.ndarray]] = {}
    for row in range(len(store)):
        motion = np.array(store.sequence(row)["pose3d"])
        motion[:, 1:] -= motion[:, :1]
        made.setdefault(str(store.table["subject"][row]), {})[str(store.table["action"][row])] = motion
    return made


class Training:
    """Training batches of wandering people: ours, and what the plain form is compared on and timed by.

    Args:
        subjects, trials, length: people, recordings of each, and about how many frames they have.
        frames, batch, count: of a window, windows of a batch, batches.
    """

    def __init__(self, subjects: int, trials: int, length: int, frames: int, batch: int, count: int) -> None:
        self.store = recorded(subjects, trials, length)
        self.recordings = relative_to_root(self.store)
        self.windows = motion_windows.every(self.store, frames, frames)
        self.frames, self.batch, self.count = frames, batch, count

    def transforms(self, *augment: Any) -> list[Callable[..., dict[str, Tensor]]]:
        return resolve([*augment, "motion"], "augment", skeleton=BODY, length=self.frames)

    def gathered(self, rows: Any) -> Iterator[tuple[dict[str, Tensor], Draws]]:
        order = orders.Order(rows, self.count * self.batch, self.batch)
        for made in DataLoader(self.windows, batch_size=None, sampler=order):
            yield made, Draws(0, 0, made["draw"], made["draw"][:1] // self.batch, training=True)

    def balanced(self) -> Iterator[tuple[dict[str, Tensor], Draws]]:
        """Our order: subject, trial and start of every window."""
        names, counts = self.store.table["subject"], motion_windows.counts(self.windows)
        visits = self.count * self.batch
        return self.gathered(motion_orders.balanced_sequences(names, counts, seed=0, visits=visits))

    def ours(self) -> Iterator[Tensor]:
        """Every window turned and mirrored by draws of its own, as in dataset=h36m_motion."""
        functions = self.transforms({"spin": {"probability": 0.5}}, "mirror_axes")
        for made, draws in self.balanced():
            for function in functions:
                made = function(made, draws)
            yield made["motion"]

    def window_by_window(self) -> Iterator[Tensor]:
        """The same in plain form: every window cut and augmented as a batch of one, with what ours draws for it."""
        table = self.store.table
        for made, draws in self.balanced():
            unit, mirror = draws.uniform("spin", (2,)), draws.uniform("mirror_axes", (2,)) < 0.5
            angles = torch.where(unit[:, 0] < 0.5, 2 * torch.pi * unit[:, 1], 0.0).tolist()
            signs = torch.where(mirror, -1.0, 1.0).tolist()
            single = []
            for row, angle, (x, y) in zip(made["index"].tolist(), angles, signs, strict=True):
                sequence, start = self.windows.table[row, :2]
                motion = self.recordings[str(table["subject"][sequence])][str(table["action"][sequence])]
                single.append((motion[None, start : start + self.frames], (angle, x, y)))
            yield torch.cat(list(reference.training_batches(single)))

    def published(self) -> Iterator[Tensor]:
        """The published program: draws of its own, a turn for a whole batch."""
        random = np.random.RandomState(0)
        drawn = reference.drawn_windows(self.recordings, self.frames, self.batch, self.count, random)
        return reference.training_batches(drawn)

    def replayed(self) -> Iterator[Tensor]:
        """The published draws through our data path: dataset.order=legacy with `published_turns`."""
        names, counts = self.store.table["subject"], motion_windows.counts(self.windows)
        rows = motion_orders.Published(
            names, counts, batch_size=self.batch, batches=self.count, seed=0, augmented=True
        )  # fmt: skip
        functions = self.transforms("published_turns")
        for made, draws in self.gathered(rows):
            turns = torch.from_numpy(rows.turns(0))[made["draw"] // self.batch]
            made = {**made, TURN: turns[:, 0], SIGNS: turns[:, 1:]}
            for function in functions:
                made = function(made, draws)
            yield made["motion"]


def build_windows(**sizes: int) -> Pair:
    """Training batches (B, N, F) with augmentation, ours drawn anew for every window.

    Equality: our stream against the plain form on the same draws, and the published stream against ours with the
    published draws.
    """
    as_after_a_network()
    training = Training(**sizes)

    def run(batches: Callable[[], Iterator[Tensor]]) -> None:
        for _ in batches():
            pass

    def difference() -> float:
        pairs = [(training.ours, training.window_by_window), (training.replayed, training.published)]
        return max(distance(*zip(found(), expected(), strict=True)) for found, expected in pairs)

    return Pair(partial(run, training.published), partial(run, training.ours), difference)


bench(
    build_windows,
    "motion_windows",
    operation="training windows of 125 frames, augmented window by window",
    reference="slice by slice, augmented as a batch",
    sizes={"subjects": 5, "trials": 30, "length": 600, "frames": 125, "batch": 64, "count": 40},
    small={"subjects": 2, "trials": 3, "length": 40, "frames": 10, "batch": 4, "count": 6},
    bound=0.9,
    goal=1.1,
    tolerance=1e-5,
    rounds=7,
)


def build_memory(
    *, history: int, horizon: int, kept: int, dim: int, depth: int, heads: int, few: int, many: int, samples: int,
    chunk: int, batch: int,
) -> Pair:  # fmt: skip
    """A test of few and of many windows: sampled, judged and forgotten batch by batch.

    Equality: what the windows of both have in samples, so that the numbers of a window do not depend on the others.
    """
    model, _ = network(family="smrnet", kept=kept, dim=dim, depth=depth, heads=heads)
    space = MotionSpace(history=history, horizon=horizon, kept_coeffs=kept)
    sampler = MotionSampler(model, space, ddim_timesteps=2, chunk=chunk)
    store = recorded(1, 1, 4 * (space.frames + many))
    windows = motion_windows.published(store, space.frames, 1).evenly_spaced(many)
    to_motion = resolve(["motion"], "transforms", skeleton=BODY, length=space.frames)[0]

    def evaluate(count: int) -> Tensor:
        chosen = windows.subset(np.arange(count))
        protocol = PredictionProtocol(chosen, history=history)
        for picks in orders.evaluation(count, batch):
            made = chosen[picks]
            made = to_motion(made, Draws(0, 0, made["draw"], made["draw"][:1]))
            motion = sampler(made["motion"][:, :history], samples, ids=made["index"])
            protocol.update(motion[:, :, history:], made)
        return protocol.values[:, :3]  # apd, ade, fde

    def difference() -> float:
        return distance((evaluate(many)[:few].float(), evaluate(few).float()))

    return Pair(lambda: evaluate(few), lambda: evaluate(many), difference)


bench(
    build_memory,
    "prediction_memory",
    operation="test of 64 windows, 50 samples, chunk 100: peak memory",
    reference="test of 8 windows",
    sizes={**WINDOW, "dim": 64, "depth": 2, "heads": 4, "few": 8, "many": 64, "samples": 50, "chunk": 100, "batch": 8},
    small={**SMALL_NET, "few": 2, "many": 5, "samples": 3, "chunk": 4, "batch": 2},
    bound=1.2,
    goal=1.05,
    tolerance=1e-6,
    kind="memory",
)
