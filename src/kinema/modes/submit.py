"""mode=submit: the prediction file that a challenge server takes, from the stored scores of a test or a fusion."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from kinema import runs
from kinema.data import safe_pickle
from kinema.data.class_list import class_list
from kinema.errors import ConfigError, DataError
from kinema.results import fuse, score_files, submission
from kinema.results.score_files import Scores

log = logging.getLogger(__name__)


def run(config: DictConfig) -> float | None:
    """Write `prediction.csv` and `submission.zip` for the scores of `input`.

    Raises:
        ConfigError: without scores, for an unknown layout or way to the bodies, without groups of the classes.
    """
    with runs.recorded(config) as run_:
        options = config.submit
        if not config.input:
            raise ConfigError(
                "mode=submit writes the scores of test clips, and none are given. "
                "Use input=RUN, the directory of a mode=test or mode=fuse, or a .npz or .pkl of scores."
            )
        for key, known in (("layout", submission.LAYOUTS), ("body", submission.BODIES)):
            if options[key] not in known:
                raise ConfigError(f"submit.{key}={options[key]} is unknown. Use one of {', '.join(map(str, known))}.")
        listed = score_files.read_names(options.list)[0] if options.list else None
        content = score_files.read(config.input, names=None if _has_names(config.input) else options.list)
        groups = _groups(content, options.classes)
        if content.values.shape[1] < submission.COLUMNS:
            raise DataError(
                f"{content.source} scores {content.values.shape[1]} classes; the file has {submission.COLUMNS} actions "
                "per clip. Only scores of the challenge's own classes can be submitted."
            )
        rows, names = submission.in_list_order(content.names, listed, options.suffix)
        if listed is None:
            log.warning(
                "no official list: the rows stand in the order of the test. The server expects its own (submit.list=)"
            )
        chosen = content.take(rows)
        actions = submission.ranked(chosen.values, submission.COLUMNS)
        own = _body_scores(options.body_input, chosen) if options.body_input else chosen.group_scores
        bodies = submission.bodies_of(fuse.log_softmax(chosen.logits()), actions, groups, options.body, own)
        text = submission.table(names, actions, bodies, options.layout)
        plain, packed = submission.write(run_.folder, text)
        print(f"{len(names):,} clips of {content.source}\nwritten: {plain}\nwritten: {packed}")
    return None


def _has_names(source: str) -> bool:
    path = Path(source)
    return path.is_dir() or (path.suffix == ".npz" and "names" in safe_pickle.npz_keys(path))


def _groups(content: Scores, classes: str | None) -> np.ndarray:
    """The body of each action, by the class list, whose names must then be those of the scores."""
    if classes is None:
        if content.groups is None:
            raise ConfigError(f"{content.source} says no body of any action. Name the list: submit.classes=ma52.")
        return content.groups
    known = class_list(classes)
    if known.groups is None:
        raise ConfigError(f"submit.classes={classes} has no groups, which are the bodies. Use submit.classes=ma52.")
    if len(known.names) != content.values.shape[1]:
        raise DataError(
            f"{content.source} scores {content.values.shape[1]} classes, submit.classes={classes} has "
            f"{len(known.names)}. Only scores of the challenge's own classes can be submitted."
        )
    if content.classes is not None and tuple(content.classes) != known.names:
        row = int(np.flatnonzero(content.classes != np.array(known.names))[0])
        raise DataError(
            f"{content.source}: class {row} is {str(content.classes[row])!r}, and {known.names[row]!r} in "
            f"submit.classes={classes}. Ids of another list would be judged as other actions."
        )
    return np.array(known.groups, np.int64)


def _body_scores(source: str, chosen: Scores) -> np.ndarray:
    """Scores of the bodies from a file of their own, for the chosen clips; without names it has their order."""
    path = Path(source)
    path = path / "predictions" / "report.npz" if path.is_dir() else path
    keys = safe_pickle.npz_keys(path)
    own = [key for key in ("group_scores", "body_scores") if key in keys]
    if not own:
        raise DataError(f"{path} holds neither group_scores nor body_scores (only {', '.join(keys)}).")
    content = safe_pickle.load_npz(path, [own[0], *(["names"] if "names" in keys else [])])
    values = np.asarray(content[own[0]], np.float64)
    if "names" not in content:
        if len(values) != len(chosen.names):
            raise DataError(f"{path} scores {len(values)} clips, and {len(chosen.names)} are submitted. "
                            "Add their `names`.")  # fmt: skip
        return values
    place = {str(name): row for row, name in enumerate(content["names"])}
    missing = [name for name in chosen.names if name not in place]
    if missing:
        raise DataError(f"{path} scores no bodies for {len(missing)} clips (first {missing[0]}).")
    return values[[place[str(name)] for name in chosen.names]]
