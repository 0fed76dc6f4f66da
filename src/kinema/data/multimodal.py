"""The "multi-modal" files that come with HumanMAC and SMRNet: made, read, and sampled from as there.

No training, sampling or metric of either program uses what is in them, and nothing here asks for them: the evaluation
groups the test windows itself. They are for comparisons with GSPS-style training. Formats and construction:
docs/datasets/h36m_motion.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kinema.core.skeleton import Skeleton
from kinema.data.safe_pickle import load_npz
from kinema.data.sequences import Sequences
from kinema.errors import DataError

# subject -> trial -> start -> rows of the candidates
Index = dict[str, dict[str, dict[int, np.ndarray]]]


def candidates(sequences: Sequences, length: int, skip: int) -> np.ndarray:
    """Unit directions of the bones in windows of the training sequences.

    Args:
        sequences: of the training subjects, in the order of the file.
        length: frames of a window; windows begin at range(0, T - length, skip).
        skip: published: 20 (Human3.6M), 15 (HumanEva).

    Returns:
        (M, length, J - 1, 3) float32, the bones in the order of their outer joints, without the root.

    Source: wei-mao-2019/gsps, the files data_candi_*.npz.
    """
    skeleton = _skeleton(sequences)
    children = [joint for joint, _ in skeleton.bones]
    parents = [parent for _, parent in skeleton.bones]
    made = []
    for row in range(len(sequences)):
        pose = relative(np.asarray(sequences.sequence(row)["pose3d"]), skeleton)
        bones = pose[:, children] - pose[:, parents]
        bones /= np.linalg.norm(bones, axis=-1, keepdims=True)
        made += [bones[start : start + length] for start in range(0, len(pose) - length, skip)]
    return np.stack(made) if made else np.empty((0, length, len(children), 3), np.float32)


def posed(directions: np.ndarray, frame: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Give candidates the bones of a person: (M, T, J - 1, 3) directions to (M, T, J, 3), the root at the origin.

    Args:
        directions: of the bones.
        frame: (J, 3) any pose of the person.
        skeleton: of both.
    """
    body = relative(frame, skeleton)
    made = np.zeros((*directions.shape[:2], len(skeleton), 3), directions.dtype)
    place = {joint: number for number, (joint, _) in enumerate(skeleton.bones)}
    for joint in sorted(place, key=lambda joint: skeleton.hops[skeleton.root][joint]):
        parent = skeleton.parents[joint]
        length = np.linalg.norm(body[joint] - body[parent])
        made[:, :, joint] = made[:, :, parent] + directions[:, :, place[joint]] * length
    return made


def index(
    sequences: Sequences, directions: np.ndarray, history: int, *, near: float, apart: float, subjects: list[str]
) -> Index:
    """Find for every window the candidates that begin as it does and go on otherwise.

    A candidate, with the bones of the window's own sequence, is kept where its last observed pose is at most `near`
    from the window's, and its future at least `apart`; means over joints (and frames) of the distance in metres.

    Args:
        sequences: of the query windows, every start of each.
        directions: of `candidates`, (M, N, J - 1, 3).
        history: observed frames.
        near, apart: published in the names of the files: 0.5 and 0.1 (Human3.6M), 0.5 and 0.01 (HumanEva).
        subjects: whose windows are looked up.

    Source: wei-mao-2019/gsps, generate_multimodal_index.py.
    """
    skeleton = _skeleton(sequences)
    joints = [joint for joint in range(len(skeleton)) if joint != skeleton.root]
    made: Index = {}
    for row in range(len(sequences)):
        subject, trial = (str(sequences.table[column][row]) for column in ("subject", "trial"))
        if subject not in subjects:
            continue
        pose = relative(np.asarray(sequences.sequence(row)["pose3d"]), skeleton)
        others = posed(directions, pose[0], skeleton)[:, :, joints]
        pose = pose[:, joints]
        found = made.setdefault(subject, {}).setdefault(trial, {})
        length = directions.shape[1]
        for start in range(len(pose) - length + 1):
            window = pose[start : start + length]
            begins = np.linalg.norm(others[:, history - 1] - window[history - 1], axis=-1).mean(-1) <= near
            rows = np.flatnonzero(begins)
            way = np.linalg.norm(others[rows, history:] - window[history:], axis=-1).mean((-1, -2))
            found[start] = rows[way >= apart]
    return made


def modalities(
    window: np.ndarray,
    rows: np.ndarray,
    directions: np.ndarray,
    frame: np.ndarray,
    skeleton: Skeleton,
    *,
    history: int,
    most: int,
    random: np.random.RandomState,
) -> np.ndarray:
    """Other futures of a window, as the published loader hands them out: (most, N, J, 3), zeros where there are less.

    Args:
        window: (N, J, 3) joints relative to the root, the root where it stands.
        rows: of the index for this window.
        directions: of the candidates.
        frame: (J, 3) pose that gives the bones; published: the first one of the subject's first sequence.
        skeleton: of the poses.
        history: observed frames, taken from the window.
        most: rows at most; more are chosen among by `random`, whose state is then as before.
        random: numpy's generator of the training.

    Source: wei-mao-2019/gsps, the loader's `sample`.
    """
    rows = np.asarray(rows)
    if len(rows) > most:
        state = random.get_state()
        rows = rows[random.choice(np.arange(len(rows)), most, replace=False)]
        random.set_state(state)
    made = np.zeros((most, *window.shape), window.dtype)
    made[: len(rows)] = posed(directions[rows], frame, skeleton)
    made[: len(rows), :history] = window[:history]
    return made


def load_candidates(path: str | Path) -> np.ndarray:
    """Candidates of a file data_candi_*.npz, in either spelling of its entry."""
    stored = load_npz(path)
    for key in ("data_candidate", "data_candidate.npy"):
        if key in stored:
            found = np.asarray(stored[key])
            if found.ndim != 4 or found.shape[-1] != 3:
                raise DataError(f"{path}: data_candidate {found.shape}, expected (windows, frames, bones, 3).")
            return found
    raise DataError(f"{path} has no entry data_candidate. Use a file data_candi_*.npz.")


def load_index(path: str | Path) -> Index:
    """Index of a file t_his*.npz, read without running anything that is in it."""
    stored: Any = load_npz(path, ["data_multimodal"])["data_multimodal"]
    try:
        return {
            str(subject): {
                str(trial): {int(start): np.asarray(rows, np.int64) for start, rows in starts.items()}
                for trial, starts in trials.items()
            }
            for subject, trials in stored.items()
        }
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(f"{path}: data_multimodal is no dict subject -> action -> start -> rows ({error}).") from error


def save(folder: str | Path, *, candidates: tuple[str, np.ndarray], index: tuple[str, Index]) -> None:
    """Write both files in the published layout, each as (name without .npz, contents)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / f"{candidates[0]}.npz", data_candidate=candidates[1])
    contents: Any = index[1]
    np.savez_compressed(folder / f"{index[0]}.npz", data_multimodal=np.array(contents, dtype=object))


def relative(pose: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """(..., J, 3) relative to the root, which is then the origin."""
    made: np.ndarray = pose - pose[..., skeleton.root : skeleton.root + 1, :]
    return made


def _skeleton(sequences: Sequences) -> Skeleton:
    if sequences.skeleton is None:
        raise DataError("Bones need a skeleton, and these sequences have none. Name one in dataset.skeleton.")
    return sequences.skeleton
