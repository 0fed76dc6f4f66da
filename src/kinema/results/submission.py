"""The files that the MA-52 challenge servers take, from stored scores: `prediction.csv` of 2025 and of 2024, zipped."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kinema.errors import ConfigError, DataError

LAYOUTS = (2025, 2024)
BODIES = ("map", "sum", "head")
COLUMNS = 5
CSV_NAME = "prediction.csv"
_HEADERS = {
    2025: ["vid", *(f"action_pred_{i + 1}" for i in range(COLUMNS)), *(f"body_pred_{i + 1}" for i in range(COLUMNS))],
    2024: ["id", "pred_label_1", "pred_label_2"],
}


def ranked(scores: np.ndarray, count: int) -> np.ndarray:
    """Class ids of the highest scores, best first; equal scores in the order of their ids.

    Args:
        scores: (N, K).
        count: how many, at most K.

    Returns:
        (N, count) int64.
    """
    order: np.ndarray = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return order


def bodies_of(
    scores: np.ndarray, actions: np.ndarray, groups: np.ndarray, way: str, group_scores: np.ndarray | None = None
) -> np.ndarray:
    """Body ids for the body columns, best first.

    Args:
        scores: (N, K) log probabilities of the actions.
        actions: (N, C) ranked actions.
        groups: (K,) body of each action.
        way: "map" = the bodies of the ranked actions, repeats and all; "sum" = bodies ranked by the sum of their
            actions' probabilities; "head" = bodies ranked by `group_scores`.
        group_scores: (N, G), any scale.

    Returns:
        (N, C) int64.

    Raises:
        ConfigError: way "head" without scores, fewer bodies than columns.
    """
    if way == "map":
        mapped: np.ndarray = groups[actions]
        return mapped
    if way == "sum":
        group_scores = np.zeros((len(scores), int(groups.max()) + 1))
        np.add.at(group_scores.T, groups, np.exp(scores).T)
    if group_scores is None:
        raise ConfigError(
            "submit.body=head needs scores of the bodies, and these results have none. Give a file that has them "
            "(submit.body_input=FILE), or use submit.body=map."
        )
    if group_scores.shape[1] < actions.shape[1] or group_scores.shape[1] != int(groups.max()) + 1:
        raise ConfigError(
            f"{group_scores.shape[1]} body scores per clip; {int(groups.max()) + 1} bodies and {actions.shape[1]} "
            "columns are needed. Use submit.body=map."
        )
    return ranked(group_scores, actions.shape[1])


def table(clips: Sequence[str], actions: np.ndarray, bodies: np.ndarray, year: int) -> str:
    """The text of `prediction.csv`.

    Args:
        clips: names as the test list has them (`test0000.mp4`).
        actions: (N, 5) action ids, best first.
        bodies: (N, 5) body ids, best first.
        year: 2025 = header `vid,action_pred_1..5,body_pred_1..5`; 2024 = `id,pred_label_1,pred_label_2`, the best body
            then the best action.

    Source: repo VUT-HFUT/Micro-Action, online_evaluation/eval.py; repo VUT-HFUT/MAC_2024_baseline, MAR/README.md.
    """
    file = io.StringIO()
    writer = csv.writer(file)  # lines end in \r\n, as those of the official script
    writer.writerow(_HEADERS[year])
    for clip, action, body in zip(clips, actions.tolist(), bodies.tolist(), strict=True):
        writer.writerow([clip, *action, *body] if year == 2025 else [clip, body[0], action[0]])
    return file.getvalue()


def in_list_order(names: np.ndarray, listed: Sequence[str] | None, suffix: str) -> tuple[np.ndarray, list[str]]:
    """Rows of the scores in the order of the official list, and the names to write.

    Names match with or without the suffix; those of the list are written.

    Args:
        names: (N,) of the scored clips.
        listed: names of the official list; None = the scored clips in their own order.
        suffix: appended to names that lack it (".mp4").

    Raises:
        DataError: clips of the list without scores, scores of clips outside the list, a name twice.
    """
    bare = [str(name).removesuffix(suffix) for name in names]
    if listed is None:
        return np.arange(len(bare)), [name + suffix for name in bare]
    wanted = [str(name).removesuffix(suffix) for name in listed]
    twice = len(wanted) - len(set(wanted))
    if twice:
        raise DataError(f"The test list names {twice} clips twice. Use the official list as it is.")
    place = {name: row for row, name in enumerate(bare)}
    missing = [name for name in wanted if name not in place]
    surplus = sorted(set(bare) - set(wanted))
    if missing or surplus:
        raise DataError(
            f"Scores and test list differ: {_listed(missing)} of the list without scores, {_listed(surplus)} scored "
            "but not listed. A submission needs every clip of the list and no other: test on that list."
        )
    return np.array([place[name] for name in wanted]), [name + suffix for name in wanted]


def write(folder: Path, text: str) -> tuple[Path, Path]:
    """Write `prediction.csv` and `submission.zip` with it at the top level; the same text gives the same bytes.

    Returns:
        Both files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plain, packed = folder / CSV_NAME, folder / "submission.zip"
    plain.write_bytes(text.encode())
    entry = zipfile.ZipInfo(CSV_NAME)  # a fixed date
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    temporary = packed.with_name(f".{packed.name}")
    with zipfile.ZipFile(temporary, "w") as archive:
        archive.writestr(entry, text.encode())
    temporary.replace(packed)
    return plain, packed


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} ({shown})" if names else "none"
