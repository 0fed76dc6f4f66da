"""The configuration of a run as its checkpoint was trained, where the command line says nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf, open_dict

from kinema import composition
from kinema.checkpoints.agreement import PREPARED
from kinema.checkpoints.envelopes import Weights, read_weights
from kinema.data.class_list import class_list
from kinema.data.prediction import SAME_RATE
from kinema.errors import CheckpointError, ConfigError, KinemaError


def task_of(config: DictConfig) -> str:
    """Name of the task that a configuration chose."""
    return str(get_class(config.task["_target_"]).name)  # type: ignore[attr-defined]


def for_actions(config: DictConfig) -> DictConfig:
    """A configuration of task=action with the data set that the checkpoint was trained on.

    A data set of actions on the command line is left as it is; `composition.check` compares it with the checkpoint.
    Class names come from the file, so that no list of the training machine is needed.

    Raises:
        CheckpointError: the file was trained for another task.
        ConfigError: it does not say what it was trained on, and nobody else does.
    """
    if "action" in (config.dataset.get("tasks") or ()):
        return config
    found = read_weights(config.ckpt)
    record = found.record or {}
    trained = (record.get("config") or {}).get("dataset")
    if record and record.get("task") not in (None, "action"):
        raise CheckpointError(f"{config.ckpt} was trained for task={record['task']}. Use task={record['task']}, or a "
                              "checkpoint of task=action.")  # fmt: skip
    if trained is None:
        raise ConfigError(
            f"{config.ckpt} does not say what it was trained on: class names, preprocessing, frames. Add the data set, "
            f"{_suggestion(found)}; none of its files is needed."
        )
    trained = _with_classes(trained, (record.get("spec") or {}).get("classes"))
    result = config.copy()
    with open_dict(result):
        result.dataset = OmegaConf.create(trained)
        if not _typed("task.flip_average"):
            result.task.flip_average = bool(record["config"]["task"].get("flip_average", config.task.flip_average))
    return result


def for_lifting(config: DictConfig) -> DictConfig:
    """The configuration of `predict.lifter`: as its checkpoint says, or of `predict.lifter_options`.

    Raises:
        CheckpointError: the file was trained for another task.
        ConfigError: it does not say what keypoints it takes, and nobody else does.
    """
    options = config.predict
    path = str(options.lifter)
    record = read_weights(path).record or {}
    trained = record.get("config")
    if record and record.get("task") not in (None, "lifting", "lifting_semi"):
        raise CheckpointError(f"predict.lifter={path} was trained for task={record['task']}. It must lift keypoints to "
                              "3D: task=lifting.")  # fmt: skip
    words = [str(word) for word in options.lifter_options]
    if trained is None and not words:
        raise ConfigError(
            f"predict.lifter={path} does not say which keypoints it takes. Say it as for mode=predict, for example "
            '\'predict.lifter_options=["dataset.preprocess=motionbert"]\', or "dataset.skeleton2d=coco17" there.'
        )
    output = composition.output_dir(config)
    result = composition.compose(
        ["mode=predict", "task=lifting", "dataset=custom", *words, f"paths.output_dir='{output}'"]
    )
    with open_dict(result):
        result.ckpt = path
        result.predict = config.predict
        if trained is not None and not words:
            result.dataset, result.task = OmegaConf.create(trained["dataset"]), OmegaConf.create(trained["task"])
    return result


def for_prediction(config: DictConfig) -> DictConfig:
    """A configuration of task=prediction with the space, the noise and the frames that the checkpoint was trained with.

    The task's options come from the file, what was typed goes first. So does the data set, unless one of motion was
    chosen, which then gets the file's history and horizon.

    Raises:
        CheckpointError: the file was trained for another task.
        ConfigError: it does not say what it was trained on and nobody else does, or data at another frame rate.
    """
    if not config.ckpt:
        raise ConfigError(f"mode={config.mode} needs a trained network. Use ckpt=path/to/file.")
    record = read_weights(config.ckpt).record or {}
    trained = record.get("config")
    if record and record.get("task") not in (None, "prediction"):
        raise CheckpointError(
            f"{config.ckpt} was trained for task={record['task']}. mode={config.mode} continues motions: use a "
            "checkpoint of task=prediction."
        )
    chosen = "prediction" in (config.dataset.get("tasks") or ())
    if trained is None:
        if chosen and task_of(config) == "prediction":
            return config
        raise ConfigError(
            f"{config.ckpt} does not say what it was trained on: frames, noise, skeleton. Add its experiment, such as "
            "experiment=humanmac/h36m or experiment=smrnet/h36m; none of the data set's files is needed for input=."
        )
    result = config.copy()
    with open_dict(result):
        # What the file does not know is newer than it, and stands in the yaml.
        task = config.task if task_of(config) == "prediction" else composition.compose(["task=prediction"]).task
        task = task.copy()
        OmegaConf.set_struct(task, False)
        for key in ("optimizer", "scheduler"):  # of another group they have other keys: taken whole, or not at all
            task[key] = None
        result.task = OmegaConf.merge(task, OmegaConf.create(trained["task"]), _typed_of(config, "task"))
        if _typed("seed") and not _typed("task.seed"):
            result.task.seed = config.seed
        if not chosen:
            result.dataset = OmegaConf.create(trained["dataset"])
            skeleton = (record.get("spec") or {}).get("skeleton")
            if result.dataset.get("skeleton") is None and skeleton:  # else the files would be opened to look
                result.dataset.skeleton = skeleton
            return result
        _refuse_rate(config, trained["dataset"])
        for key in ("history", "horizon"):
            if not _typed(f"dataset.{key}"):
                result.dataset[key] = trained["dataset"][key]
    return result


def _typed_of(config: DictConfig, group: str) -> DictConfig:
    """The values of a group that were typed one by one."""
    words = HydraConfig.get().overrides.task if HydraConfig.initialized() else ()
    keys = [word.lstrip("+").partition("=")[0] for word in words]
    made = OmegaConf.create({})
    for key in keys:
        if key.startswith(f"{group}."):
            OmegaConf.update(made, key.removeprefix(f"{group}."), OmegaConf.select(config, key), force_add=True)
    return made


def _refuse_rate(config: DictConfig, trained: dict[str, Any]) -> None:
    """Refuse motion that would look faster or slower to the network than what it was trained on."""
    was, now = trained.get("fps"), config.dataset.get("fps")
    if was is not None and now is not None and abs(now / was - 1) > SAME_RATE:
        raise ConfigError(
            f"{config.ckpt} was trained at {was:g} frames per second, dataset={config.dataset.name} has {now:g}. Use "
            f"dataset.fps={was:g} where the reader resamples, or a data set of that rate."
        )


@contextmanager
def apart() -> Iterator[None]:
    """Build a second network: what was typed for the run's own is not meant for it."""
    state = HydraConfig.instance()
    before, state.cfg = state.cfg, None
    try:
        yield
    finally:
        state.cfg = before


def _with_classes(dataset: dict[str, Any], names: list[str] | None) -> dict[str, Any]:
    """A data set whose class list is the one of the file; a list that is here with these names has the groups too."""
    if names is None:
        return dataset
    classes: Any = dataset.get("classes")
    try:
        same = list(class_list(classes).names) == list(names)
    except KinemaError:
        same = False
    if same:
        return dataset
    options = {**dataset.get("reader_options", {}), "classes": list(names)}
    return {**dataset, "classes": list(names), "reader_options": options}


def _suggestion(found: Weights) -> str:
    """A data set to name for an official file."""
    last = [shape for name, shape in found.shapes.items() if name.endswith(("fc2.weight", "fc_cls.weight"))]
    many = bool(last) and last[0][0] > 60
    fitting = PREPARED.get(found.preprocess or "")
    if fitting is None:
        return f"such as dataset=ma52_fork for {Path(found.path).name}"
    return f"such as dataset={fitting[many]} (its layout belongs to preprocess={found.preprocess})"


def _typed(key: str) -> bool:
    if not HydraConfig.initialized():
        return False
    return any(word.lstrip("+").startswith(f"{key}=") for word in HydraConfig.get().overrides.task)
