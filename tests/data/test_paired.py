"""Labelled and unlabelled windows side by side: orders, ranks, resuming, what a batch holds."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from kinema.data import orders
from kinema.data.orders import Order, PairedOrder
from kinema.data.paired import PairedDataModule
from kinema.errors import ConfigError
from tests.data import tiny


def _pair(order: str, rows: tuple[int, int], size: int, rank: int = 0, world: int = 1) -> PairedOrder:
    seeds = {"seed": 0, "legacy_seed": orders.LEGACY_SEED}, {"seed": 9, "legacy_seed": orders.LEGACY_SEED_UNLABELED}
    made = [
        orders.make(order, count, size, rank=rank, world_size=world, **seed)
        for count, seed in zip(rows, seeds, strict=True)
    ]
    return PairedOrder(*made)


def published(rows: tuple[int, int], size: int, epochs: int) -> list[tuple[list[int], list[int]]]:
    """Two of VideoPose3D's generators zipped as its training loop does, the second one endless with seed 4321."""

    def endless() -> Any:
        random = np.random.RandomState(4321)
        while True:
            order = random.permutation(rows[1])
            for start in range(0, rows[1], size):
                yield order[start : start + size].tolist()

    random, others, seen = np.random.RandomState(1234), endless(), []
    for _ in range(epochs):
        order = random.permutation(rows[0])
        batches = [order[start : start + size].tolist() for start in range(0, rows[0], size)]
        seen += [(batch, next(others)) for batch in batches]
    return seen


@pytest.mark.parametrize("rows", [(10, 7), (7, 23), (9, 9)])
def test_legacy_order_is_that_of_the_published_generators(rows: tuple[int, int]) -> None:
    order, found = _pair("legacy", rows, 4), []
    for epoch in range(5):
        order.set_epoch(epoch)
        found += [(pair["labeled"][:, 2].tolist(), pair["unlabeled"][:, 2].tolist()) for pair in order]
    assert found == published(rows, 4, 5)


@pytest.mark.parametrize("name", ["legacy", "seeded"])
@pytest.mark.parametrize(("epoch", "start"), [(0, 2), (1, 0), (3, 1)])
def test_both_orders_go_on_where_they_stopped(name: str, epoch: int, start: int) -> None:
    straight, resumed = _pair(name, (10, 23), 4), _pair(name, (10, 23), 4)
    straight.set_epoch(epoch)
    resumed.labeled.begin(epoch, start)
    for wanted, found in zip(islice(straight, start, None), resumed, strict=True):
        assert all(torch.equal(wanted[key], found[key]) for key in ("labeled", "unlabeled"))


def test_no_draw_of_an_epoch_is_made_twice() -> None:
    order = _pair("seeded", (40, 6), 4)
    order.set_epoch(2)
    picks = torch.cat([pair["unlabeled"] for pair in order])
    assert picks[:, 0].unique().tolist() == [2]
    assert len(picks[:, 1].unique()) == len(picks) == 30, "six rows come several times, with other noise each time"


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_every_batch_of_both_orders(world: int) -> None:
    alone, ranks = _pair("seeded", (13, 9), 4), [_pair("seeded", (13, 9), 4, rank, world) for rank in range(world)]
    for epoch in (0, 1):
        for order in (alone, *ranks):
            order.set_epoch(epoch)
        for whole, *parts in zip(alone, *ranks, strict=True):
            for key in ("labeled", "unlabeled"):
                joined = torch.cat([part[key] for part in parts])
                joined = joined[joined[:, 2] >= 0]
                assert torch.equal(joined[joined[:, 1].argsort()], whole[key])


# The DataModule.

_PAIRED = {"kind": PairedDataModule, "subjects_train": ["S1"], "subjects_unlabeled": ["S5"], "batch_size": 4,
           "trials_val": ["S1/Walk"]}  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tiny.write(tmp_path / "tiny")


def _data(root: Path, **changes: Any) -> PairedDataModule:
    made: PairedDataModule = tiny.datamodule(root, **{**_PAIRED, **changes})
    made.prepare_data()
    made.setup("fit")
    return made


def test_without_unlabelled_subjects_it_is_the_plain_module(root: Path) -> None:
    plain, paired = tiny.datamodule(root), tiny.datamodule(root, PairedDataModule, subjects_unlabeled=[])
    for one, other in zip(plain.train_dataloader(), paired.train_dataloader(), strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)
        assert "pose" in paired.transform(other, training=True)
    assert paired.describe() == plain.describe()


def test_a_batch_holds_both_sources_and_no_truth_of_the_second(root: Path) -> None:
    data = _data(root, augment=[{"noise": {"std": 0.1}}])
    assert data.unlabeled is not None
    data.unlabeled.require("intrinsics")
    batches = list(data.train_dataloader())
    assert len(batches) == -(-22 // 4), "eleven frames in two views: the labelled windows make the epoch"
    names = {key: set(data.transform(batches[0], training=True)[key]) for key in ("labeled", "unlabeled")}
    assert names["labeled"] - names["unlabeled"] == {"pose3d"}
    assert names["unlabeled"] - names["labeled"] == {"intrinsics"}
    subjects = data.unlabeled.windows("train").sequences.table["subject"]
    assert set(subjects) == {"S5"} and set(data.windows("train").sequences.table["subject"]) == {"S1"}
    mirrored = batches[0]["unlabeled"]["flip"]
    lenses = batches[0]["unlabeled"]["intrinsics"]
    assert mirrored.any() and torch.equal(lenses[:, 2] < 0, mirrored) and torch.equal(lenses[:, 7] < 0, mirrored)
    both = data.transform(batches[0], training=True)
    moved = [(both[key]["pose"] - both[key]["pose2d"])[0, 0, 0] for key in ("labeled", "unlabeled")]
    assert (moved[0] != moved[1]).all(), "noise of either source is its own"
    assert "without their 3D: S5" in data.describe()


def test_options_of_the_unlabelled_subjects(root: Path) -> None:
    data = _data(root, subset=0.5, limit_windows=3, unlabeled={"batch_size": 6, "downsample": 3})
    assert data.unlabeled is not None
    assert len(data.windows("train")) == 3
    windows = data.unlabeled.windows("train")
    assert len(windows) == 6 and windows.sequences.num_frames == 3, "nine frames, every third, both views"
    assert len(next(iter(data.train_dataloader()))["unlabeled"]["index"]) == 6
    with pytest.raises(ConfigError, match="no option 'subjets'"):
        tiny.datamodule(root, **_PAIRED, unlabeled={"subjets": 1})


def test_raw_files_are_read_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    original = tiny.read
    monkeypatch.setattr(tiny, "read", lambda *args, **options: reads.append(1) or original(*args, **options))
    _data(root, cache_dir=None).train_dataloader()
    _data(root)
    assert len(reads) == 2, "one in memory, one into the cache"


def test_two_dimensions_alone_are_enough(root: Path) -> None:
    data = _data(root, unlabeled={"has_3d": False})
    assert data.unlabeled is not None and not data.unlabeled.spec.has_3d
    assert {"labeled", "unlabeled"} == set(next(iter(data.train_dataloader())))


class Net(pl.LightningModule):
    """Writes down what it was trained on."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = torch.nn.Linear(34, 1)
        self.seen: list[Any] = []

    def training_step(self, batch: dict[str, dict[str, torch.Tensor]], batch_idx: int) -> torch.Tensor:
        self.seen.append([[batch[key][name].tolist() for name in ("draw", "index")] for key in sorted(batch)])
        return torch.stack([self.head(batch[key]["pose"].flatten(2)).square().mean() for key in sorted(batch)]).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 1e-2)


def _fit(root: Path, workers: int = 0, resume: Path | None = None, **options: Any) -> Net:
    net = Net()
    noisy = {"augment": [{"noise": {"std": 0.1}}], "num_workers": workers}
    changes = {**_PAIRED, **noisy, **options.pop("changes", {})}
    fixed = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = pl.Trainer(default_root_dir=root, use_distributed_sampler=False, max_epochs=3, limit_val_batches=0,
                         enable_checkpointing="callbacks" in options, **fixed, **options)  # fmt: skip
    trainer.fit(net, datamodule=tiny.datamodule(root, **changes), ckpt_path=resume, weights_only=True)
    return net


def test_a_resumed_run_equals_the_uninterrupted_one(root: Path) -> None:
    saver = pl.callbacks.ModelCheckpoint(root / "c", save_top_k=-1, every_n_train_steps=1, filename="{step}")
    straight = _fit(root, callbacks=[saver])
    assert len(straight.seen) == 18
    for step, workers in ((4, 0), (6, 0), (11, 2)):
        resumed = _fit(root, workers, root / "c" / f"step={step}.ckpt")
        assert resumed.seen == straight.seen[step:]
        assert torch.equal(resumed.head.weight, straight.head.weight)


def test_other_unlabelled_data_cannot_continue_a_run(root: Path) -> None:
    saver = pl.callbacks.ModelCheckpoint(root / "c", save_top_k=-1, every_n_train_steps=1, filename="{step}")
    _fit(root, callbacks=[saver], max_steps=2)
    with pytest.raises(ConfigError, match=r"had 18 in batches of .* this one has 16 in"):
        _fit(root, resume=root / "c" / "step=2.ckpt", changes={"subjects_unlabeled": ["S9"], "actions": ["Walk"]})
    with pytest.raises(ConfigError, match="this one has none"):
        _fit(root, resume=root / "c" / "step=2.ckpt", changes={"subjects_unlabeled": []})


def test_the_unlabelled_order_does_not_depend_on_the_labelled_one() -> None:
    few, many = _pair("seeded", (4, 23), 4), _pair("seeded", (40, 23), 4)
    first = []
    for epoch in range(10):
        few.set_epoch(epoch)
        first += [pair["unlabeled"][:, 2].tolist() for pair in few]
    assert first == [pair["unlabeled"][:, 2].tolist() for pair in many]
    assert isinstance(few.labeled, Order)
