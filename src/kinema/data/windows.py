"""Windows: a table of training or evaluation windows over Sequences, and the gather that turns picks into a batch."""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from kinema.core.motion import resample_indices, split_clips
from kinema.data import clip_rules, mirror
from kinema.data.clip_rules import CLIP_RULES, Chance
from kinema.data.rules import RULES
from kinema.data.sequences import Sequences
from kinema.errors import ConfigError, DataError

# Columns of the table.
SEQUENCE, START, SPAN, VIEW = range(4)

# Arrays read at the input frames (context included); all others are read at the target frames.
_INPUT_ARRAYS = frozenset({"pose2d", "pose3d_input"})

# Batch keys that are an array of another name, at other frames.
_ALIASES = {"pose3d_input": "pose3d"}

# What every batch holds, computed from the picks and the table.
ALWAYS = ("valid", "flip", "frames", "draw", "index")


class Windows(Dataset[dict[str, Tensor]]):
    """Rows of (sequence, start, span, view) over a store; indexed by picks, it gathers a whole batch at once.

    A row covers `targets` target frames from `start` on and before + targets + after input frames. Bit 0 of `view`
    says that the row is mirrored, the bits above it which test clip of a whole clip it is.

    Rows of whole clips (`clips`) are gathered with all their persons, whose rows of the store are neighbours: the poses
    are then (B, M, T, J, C), with zeros for persons that a clip does not have, and `persons` (B, M) says who is there.

    Args:
        sequences: the store.
        table: (W, 4) int32: sequence, first target frame inside it (may lie before 0), source frames covered, view.
        targets: target frames of a row; None = as many as its `span`, which must then agree within a batch.
        context: input frames before and after the targets.
        rule: how positions are found, a name in `rules.RULES` or, for whole clips, in `clip_rules.CLIP_RULES`.
        keys: arrays, camera vectors and numeric columns of the table to gather beside what every batch holds;
            `pose3d_input` is `pose3d` at the input frames. None = the poses that the store has.
        given: (W, targets) int32 positions inside the sequence, for rule "given".
        persons: persons M of a row; None = rows of one person, without that axis.
        seed: of what a clip rule draws.
        cut: shares of a clip between which a random stretch of it is shown; None = the whole clip.
        frozen: whether a row draws once, and not anew in every epoch.
    """

    def __init__(
        self,
        sequences: Sequences,
        table: np.ndarray,
        targets: int | None,
        *,
        context: tuple[int, int] = (0, 0),
        rule: str = "clamp",
        keys: tuple[str, ...] | None = None,
        given: np.ndarray | None = None,
        persons: int | None = None,
        seed: int = 0,
        cut: tuple[float, float] | None = None,
        frozen: bool = False,
    ) -> None:
        known = RULES if persons is None else CLIP_RULES
        if rule not in known:
            raise ConfigError(f"No frame rule is called {rule!r}. Known: {', '.join(known)}.")
        self.sequences = sequences
        self.table = np.asarray(table, dtype=np.int32)
        self.targets = targets
        self.context = (int(context[0]), int(context[1]))
        self.rule = rule
        self.given = given
        self.persons, self.seed, self.cut, self.frozen = persons, seed, cut, frozen
        self.views = 1 if persons is None else int(self.table[:, VIEW].max(initial=0) >> 1) + 1  # test clips per clip
        self.keys = tuple(name for name in ("pose2d", "pose3d") if name in sequences.arrays) if keys is None else keys
        self.total = len(self.table)  # before `evenly_spaced` left some out
        self.among: tuple[Windows, np.ndarray] | None = None  # these all, and which rows of them stand here
        self._files: dict[str, Path] = {}
        self._flat: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.table)

    @property
    def keys(self) -> tuple[str, ...]:
        """What is gathered; assigning checks that the store has it."""
        return self._keys

    @keys.setter
    def keys(self, keys: tuple[str, ...]) -> None:
        for key in keys:
            known = {*self.sequences.arrays, *self.sequences.cameras, *ALWAYS}
            column = self.sequences.table.get(key)
            key = _ALIASES.get(key, key)
            if key not in known and (column is None or column.dtype.kind not in "biuf"):
                raise DataError(f"The data has no {key!r}. It has: {', '.join(sorted(known))}.")
        self._keys = tuple(key for key in keys if key not in ALWAYS)

    # How the table is filled.

    @classmethod
    def chunked(
        cls,
        sequences: Sequences,
        targets: int,
        *,
        context: tuple[int, int],
        stride: int | None = None,
        both_views: bool = False,
        **options: Any,
    ) -> Windows:
        """Cut every sequence into chunks of `targets` frames, centred so that the overhang is shared by both ends.

        With one target this is one window centred on every frame. The order is that of VideoPose3D's ChunkedGenerator:
        of each sequence all chunks, then (`both_views`) all chunks mirrored. Its pad P and causal shift S are
        context=(P + S, P - S). Chunks begin every `stride` frames, None = where the one before ends, as there.
        """
        step = targets if stride is None else stride
        length = sequences.table["length"]
        chunks = -(-np.maximum(length - targets, 0) // step) + 1
        first = -(((chunks - 1) * step + targets - length) // 2)
        sequence, chunk, view = _spread(chunks, 2 if both_views else 1)
        table = _table(sequence, first[sequence] + chunk * step, targets, view)
        return cls(sequences, table, targets, context=context, **options)

    @classmethod
    def strided(
        cls, sequences: Sequences, frames: int, stride: int, *, random: np.random.RandomState, **options: Any
    ) -> Windows:
        """Clips of `frames` frames every `stride` frames, as MotionBERT cuts them (`core.motion.split_clips`).

        The rest of a sequence behind its last clip is dropped; a sequence shorter than a clip is resampled at random
        to one (from `random`, once and for all), unless it is the last one, which is lost.
        """
        length = sequences.table["length"]
        owner = np.repeat(np.arange(len(sequences)), length)
        clips = split_clips(owner, frames, stride, random)
        sequence = owner[clips[:, 0]]
        positions = clips - (np.cumsum(length) - length)[sequence][:, None]
        short = length[sequence] < frames
        table = _table(sequence, positions[:, 0], np.where(short, length[sequence], frames), 0)
        if not short.any():
            return cls(sequences, table, frames, **options)
        return cls(sequences, table, frames, rule="given", given=positions.astype(np.int32), **options)

    @classmethod
    def tiled(
        cls, sequences: Sequences, frames: int, stride: int, *, both_views: bool = False, **options: Any
    ) -> Windows:
        """Clips of `frames` frames every `stride` frames, of which the last is shifted back to end with its sequence.

        Every frame is covered. A sequence shorter than a clip gives one, whose end repeats the last frame.
        """
        length = sequences.table["length"]
        last = np.maximum(length - frames, 0)
        clips = -(-last // stride) + 1
        sequence, clip, view = _spread(clips, 2 if both_views else 1)
        table = _table(sequence, np.minimum(clip * stride, last[sequence]), frames, view)
        table[:, SPAN] = np.minimum(frames, length[sequence])
        return cls(sequences, table, frames, **options)

    @classmethod
    def stretched(
        cls, sequences: Sequences, frames: int, stride: int, *, both_views: bool = False, **options: Any
    ) -> Windows:
        """Clips of `frames` frames that begin every `stride` frames, to the last; short ones repeat frames.

        What is left of a sequence for its last clips is spread evenly over them (`core.motion.resample_indices`).

        Source: MotionAGFormer, data/reader/motion_dataset.py (MPI3DHP).
        """
        length = sequences.table["length"]
        sequence, clip, view = _spread(-(-length // stride), 2 if both_views else 1)
        start = clip * stride
        span = np.minimum(length[sequence] - start, frames)
        table = _table(sequence, start, span, view)
        spread = resample_indices(np.arange(frames + 1), frames).astype(np.int32)  # by the frames there are
        positions = spread[span] + start[:, None].astype(np.int32)
        return cls(sequences, table, frames, rule="given", given=positions, **options)

    @classmethod
    def centred(
        cls, sequences: Sequences, targets: int, *, context: tuple[int, int] = (0, 0), **options: Any
    ) -> Windows:
        """One window around every frame that is `valid` (all joints of it); only the middle target counts.

        Beyond the ends of a sequence its first or last frame stands again.
        """
        length = sequences.table["length"]
        sequence, frame, _ = _spread(length, 1)
        if "valid" in sequences.arrays:
            rows = sequences.table["start"][sequence] + frame * sequences.step
            valid = np.asarray(sequences.arrays["valid"][rows])
            kept = valid if valid.ndim == 1 else valid.all(-1)
            sequence, frame = sequence[kept], frame[kept]
        table = _table(sequence, frame - targets // 2, targets, 0)
        return cls(sequences, table, targets, context=context, rule="centre", **options)

    @classmethod
    def whole(
        cls, sequences: Sequences, *, context: tuple[int, int] = (0, 0), both_views: bool = False, **options: Any
    ) -> Windows:
        """One row per sequence (two with `both_views`, the mirrored one second), for batches of one sequence."""
        sequence, _, view = _spread(np.ones(len(sequences), dtype=np.int64), 2 if both_views else 1)
        table = _table(sequence, 0, sequences.table["length"][sequence], view)
        return cls(sequences, table, None, context=context, **options)

    @classmethod
    def clips(
        cls, sequences: Sequences, frames: int, *, rule: str, persons: int, views: int = 1, **options: Any
    ) -> Windows:
        """One row per clip, or `views` neighbouring ones per clip at test time, with its persons; for actions."""
        sequence = np.flatnonzero(sequences.table["person"] == 0)
        table = _table(np.repeat(sequence, views), 0, 0, np.tile(np.arange(views) << 1, len(sequence)))
        table[:, SPAN] = sequences.table["length"][table[:, SEQUENCE]]
        return cls(sequences, table, frames, rule=rule, persons=persons, **options)

    def subset(self, rows: np.ndarray) -> Windows:
        """Return some rows, in the order given."""
        return Windows(
            self.sequences, self.table[rows], self.targets, context=self.context, rule=self.rule, keys=self.keys,
            given=None if self.given is None else self.given[rows],
            persons=self.persons, seed=self.seed, cut=self.cut, frozen=self.frozen,
        )  # fmt: skip

    def evenly_spaced(self, count: int) -> Windows:
        """Return at most `count` rows spread over the table."""
        if count >= len(self):
            return self
        rows = np.arange(count) * len(self) // count
        made = self.subset(rows)
        made.total, made.among = len(self), (self, rows)
        return made

    # The gather.

    def __getitem__(self, picks: Tensor) -> dict[str, Tensor]:
        """Gather a batch.

        Args:
            picks: (B, 3) int64: epoch, position in the epoch's order, row; row -1 is a filler that reads row 0.

        Returns:
            `pose2d` (B, T, J2, C), everything else of `keys` at the T' target frames ((B, T', ...) for arrays, (B, ...)
            for camera vectors and columns), and `valid` (B, T') or, where the store says it per joint, (B, T', J);
            `flip` (B,), `frames` (B, T') rows of the store, `draw` (B,), `index` (B,). Of whole clips poses are
            (B, M, T', J, C), with `persons` (B, M) and `label` (B,) in place of `valid` and `flip`.
        """
        draw, index = picks[:, 1], picks[:, 2]
        rows = self.table[np.maximum(index.numpy(), 0)]
        if self.persons is not None:
            return self._clips(rows, picks)
        flip = (rows[:, VIEW] & 1).astype(bool)
        sequence = rows[:, SEQUENCE]
        targets, inside = self._frames(rows, index, context=(0, 0))
        inputs = targets
        if self.context != (0, 0) and not _INPUT_ARRAYS.isdisjoint(self.keys):
            inputs, _ = self._frames(rows, index, context=self.context)
        batch = {}
        for key in self.keys:
            array = _ALIASES.get(key, key)
            if array in self.sequences.arrays:
                batch[key] = self._gather(array, inputs if key in _INPUT_ARRAYS else targets, flip)
            elif key in self.sequences.cameras:
                batch[key] = self._camera(key, sequence, flip)
            else:
                batch[key] = torch.from_numpy(self.sequences.table[key][sequence])
        valid = torch.from_numpy(inside)
        if "valid" in self.sequences.arrays:
            stored = self._gather("valid", targets, flip)
            valid = stored & (valid if stored.ndim == 2 else valid[..., None])
        batch |= {"valid": valid, "flip": torch.from_numpy(flip), "frames": torch.from_numpy(targets)}
        return batch | {"draw": draw, "index": index}

    def _clips(self, rows: np.ndarray, picks: Tensor) -> dict[str, Tensor]:
        """A batch of whole clips: poses of all persons at the frames of the rule."""
        assert self.persons is not None
        table, first = self.sequences.table, rows[:, SEQUENCE]
        frames = table["start"][first][:, None] + self._positions(rows, picks)
        # Persons of a clip are neighbouring rows of equal length; behind the last of them another clip begins.
        member = first[:, None] + np.arange(self.persons)
        present = member < len(self.sequences)
        member = np.where(present, member, first[:, None])
        present &= table["person"][member] == np.arange(self.persons)
        moved = table["start"][member] - table["start"][first][:, None]
        flat = (frames[:, None] + np.where(present, moved, 0)[..., None]).reshape(-1, frames.shape[1])
        nobody = np.zeros(len(flat), bool)
        batch = {}
        for key in self.keys:
            if key in self.sequences.arrays:
                poses = self._gather(key, flat, nobody).unflatten(0, (-1, self.persons))
                if not present.all():
                    poses[torch.from_numpy(~present)] = 0
                batch[key] = poses
            else:
                batch[key] = torch.from_numpy(table[key][first])
        return batch | {
            "persons": torch.from_numpy(present), "label": torch.from_numpy(table["label"][first]),
            "frames": torch.from_numpy(frames), "draw": picks[:, 1], "index": picks[:, 2],
        }  # fmt: skip

    def _positions(self, rows: np.ndarray, picks: Tensor) -> np.ndarray:
        """Frames inside their clips, (B, T), by the clip rule."""
        assert self.targets is not None
        epoch, draw = (picks[:, 0], picks[:, 1]) if not self.frozen else clip_rules.once(picks[:, 1], picks[:, 2])
        chance = Chance(self.seed, epoch, draw, rows[:, VIEW] >> 1, self.views)
        length = rows[:, SPAN].astype(np.int64)
        if self.cut is None:
            return CLIP_RULES[self.rule](length, self.targets, chance)
        start, kept = clip_rules.cut(length, self.cut, chance)
        return start[:, None] + CLIP_RULES[self.rule](kept, self.targets, chance)

    def frames(self, picks: Tensor) -> Tensor:
        """Rows of the store that the targets of some picks stand in, (B, T') int64."""
        rows = self.table[np.maximum(picks[:, 2].numpy(), 0)]
        return torch.from_numpy(self._frames(rows, picks[:, 2], context=(0, 0))[0])

    def _frames(self, rows: np.ndarray, index: Tensor, context: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        targets = self.targets
        if targets is None:
            targets = int(rows[0, SPAN])
            if (rows[:, SPAN] != targets).any():
                raise ValueError("Rows of different spans in one batch: whole sequences are gathered one by one.")
        length = self.sequences.table["length"][rows[:, SEQUENCE]]
        offsets = np.arange(-context[0], targets + context[1])
        given = None if self.given is None else self.given[np.maximum(index.numpy(), 0)]
        positions, inside = RULES[self.rule](rows[:, START].astype(np.int64), length, offsets, given)
        if self.sequences.step != 1:
            positions *= self.sequences.step
        positions += self.sequences.table["start"][rows[:, SEQUENCE]][:, None]
        return positions, inside

    def _gather(self, key: str, frames: np.ndarray, flip: np.ndarray) -> Tensor:
        store = self.sequences.arrays
        array = store.both(key)
        if key not in self._flat:
            # One row of bytes per frame: the gather is then one memory copy per frame.
            self._flat[key] = array.reshape(len(array), -1) if array.ndim > 1 else array
        how = mirror.rule(self.sequences, key) if flip.any() else None
        if how is not None and key in store.doubled:
            frames = frames + (flip * store.rows)[:, None]
        out = np.take(self._flat[key], frames, axis=0, mode="clip").reshape(*frames.shape, *array.shape[1:])
        if how is not None and key not in store.doubled:
            out[flip] = mirror.mirrored(out[flip], how[0], negate=how[1], axis=2)
        return torch.from_numpy(out)

    def _camera(self, key: str, sequence: np.ndarray, flip: np.ndarray) -> Tensor:
        vectors = self.sequences.cameras[key][sequence]
        if key == "intrinsics" and flip.any():
            vectors[np.ix_(np.flatnonzero(flip), np.array(mirror.INTRINSICS_NEGATED))] *= -1
        return torch.from_numpy(vectors)

    # Small pickles for loader processes.

    def mapped(self, folder: str | Path) -> Windows:
        """Keep the tables as mapped files in `folder`, named by their contents, so that a pickle holds only paths."""
        for name in ("table", "given"):
            array = getattr(self, name)
            if array is None or name in self._files:
                continue
            array = np.ascontiguousarray(array)
            path = Path(folder) / f"{hashlib.blake2b(array.tobytes(), digest_size=12).hexdigest()}-{len(array)}.npy"
            if not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary = path.with_suffix(f".{uuid.uuid4().hex}")
                with temporary.open("wb") as file:
                    np.save(file, array, allow_pickle=False)
                temporary.replace(path)
            self._files[name] = path
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_flat": {}, "among": None, **dict.fromkeys(self._files)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for name, path in self._files.items():
            setattr(self, name, np.asarray(np.load(path, mmap_mode="r", allow_pickle=False)))


def _spread(counts: np.ndarray, views: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sequence, number within it, and view of every row: per sequence all of view 0, then all of view 1."""
    rows = counts * views
    sequence = np.repeat(np.arange(len(counts)), rows)
    within = np.arange(len(sequence)) - np.repeat(np.cumsum(rows) - rows, rows)
    return sequence, within % np.maximum(counts, 1)[sequence], within // np.maximum(counts, 1)[sequence]


def _table(sequence: np.ndarray, start: np.ndarray | int, span: np.ndarray | int, view: np.ndarray | int) -> np.ndarray:
    table = np.empty((len(sequence), 4), dtype=np.int32)
    table[:, SEQUENCE], table[:, START], table[:, SPAN], table[:, VIEW] = sequence, start, span, view
    return table
