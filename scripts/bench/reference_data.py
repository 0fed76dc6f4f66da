"""The published data paths in plain form: a pickle per clip, a generator that pads every window, one item at a time."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from kinema.core.skeleton import Skeleton


def flipped(pose: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """A mirrored copy of (..., J, C): x negated, left and right joints exchanged by index lists."""
    left, right = list(skeleton.left), list(skeleton.right)
    out = pose.copy()
    out[..., 0] *= -1
    out[..., left + right, :] = out[..., right + left, :]
    return out


def write_clips(folder: Path, clips: Iterator[tuple[np.ndarray, np.ndarray]]) -> list[Path]:
    """Write one pickle per clip, input and label, as MotionBERT's converter does."""
    paths = []
    for number, (pose2d, pose3d) in enumerate(clips):
        paths.append(folder / f"{number:08d}.pkl")
        with paths[-1].open("wb") as file:
            pickle.dump({"data_input": pose2d, "data_label": pose3d}, file)
    return paths


class PickledClips(Dataset[tuple[Tensor, Tensor]]):
    """MotionBERT's training clips: an item opens its file and is mirrored or not.

    Args:
        paths: one pickle per clip.
        mirrored: whether an item is to be mirrored, decided beforehand so that both forms can be compared.
        skeleton: of input and label.
    """

    def __init__(self, paths: Sequence[Path], mirrored: Sequence[bool], skeleton: Skeleton) -> None:
        self.paths, self.mirrored, self.skeleton = paths, mirrored, skeleton

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, item: int) -> tuple[Tensor, Tensor]:
        with self.paths[item].open("rb") as file:
            clip = pickle.load(file)  # written a moment ago by `write_clips`
        pose2d, pose3d = clip["data_input"], clip["data_label"]
        if self.mirrored[item]:
            pose2d, pose3d = flipped(pose2d, self.skeleton), flipped(pose3d, self.skeleton)
        return torch.FloatTensor(pose2d), torch.FloatTensor(pose3d)


class ChunkedGenerator:
    """VideoPose3D's training batches: a list of chunks, float64 buffers filled window by window, padded at the edges.

    Args:
        poses2d: (T, J, 2) of each sequence.
        poses3d: (T, J, 3) of each sequence.
        batch_size: windows of a batch.
        frames: of a window; one target in its centre.
        skeleton: of both.
        seed: of the permutations, which a running generator draws.
    """

    def __init__(
        self,
        poses2d: Sequence[np.ndarray],
        poses3d: Sequence[np.ndarray],
        batch_size: int,
        frames: int,
        skeleton: Skeleton,
        seed: int = 1234,
    ) -> None:
        self.poses2d, self.poses3d = poses2d, poses3d
        self.batch_size, self.pad = batch_size, frames // 2
        self.left, self.right = list(skeleton.left), list(skeleton.right)
        self.seed = seed
        self.chunks: list[tuple[int, int, int, bool]] = []
        for number, pose in enumerate(poses3d):
            for mirrored in (False, True):
                self.chunks += [(number, start, start + 1, mirrored) for start in range(len(pose))]
        joints = poses3d[0].shape[1]
        self.batch2d = np.empty((batch_size, frames, joints, poses2d[0].shape[-1]))
        self.batch3d = np.empty((batch_size, 1, joints, 3))

    def epoch(self, batches: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The first batches of the first shuffled epoch, as float32 tensors: 3D (B, 1, J, 3) and 2D (B, F, J, C)."""
        chunks = np.random.RandomState(self.seed).permutation(self.chunks)
        for batch in range(batches):
            some = chunks[batch * self.batch_size : (batch + 1) * self.batch_size]
            for row, (number, start, end, mirrored) in enumerate(some):
                pose2d, pose3d = self.poses2d[number], self.poses3d[number]
                first, last = start - self.pad, end + self.pad
                low, high = max(first, 0), min(last, len(pose2d))
                before, after = low - first, last - high
                if before or after:
                    window = np.pad(pose2d[low:high], ((before, after), (0, 0), (0, 0)), "edge")
                else:
                    window = pose2d[low:high]
                self.batch2d[row], self.batch3d[row] = window, pose3d[start:end]
                if mirrored:
                    for buffer in (self.batch2d, self.batch3d):
                        buffer[row, :, :, 0] *= -1
                        buffer[row, :, self.left + self.right] = buffer[row, :, self.right + self.left]
            size = len(some)
            yield (
                torch.from_numpy(self.batch3d[:size].astype("float32")),
                torch.from_numpy(self.batch2d[:size].astype("float32")),
            )


class WindowItems(Dataset[dict[str, Tensor]]):
    """One window per item, gathered with clamped frame numbers; the loader collates items to batches.

    Args:
        poses2d: (T, J, 2) of each sequence.
        poses3d: (T, J, 3) of each sequence.
        frames: of a window.
    """

    def __init__(self, poses2d: Sequence[np.ndarray], poses3d: Sequence[np.ndarray], frames: int) -> None:
        self.poses2d, self.poses3d, self.pad = poses2d, poses3d, frames // 2
        self.index = [(number, frame) for number, pose in enumerate(poses3d) for frame in range(len(pose))]
        self.offsets = np.arange(-self.pad, self.pad + 1)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, item: int) -> dict[str, Tensor]:
        number, frame = self.index[item]
        pose2d = self.poses2d[number]
        rows = np.clip(frame + self.offsets, 0, len(pose2d) - 1)
        return {
            "pose2d": torch.from_numpy(pose2d[rows]),
            "pose3d": torch.from_numpy(self.poses3d[number][frame : frame + 1].copy()),
        }
