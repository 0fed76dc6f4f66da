"""From a configuration to live objects: model, data, task, trainer, in this order, and the check between them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from kinema import launch
from kinema.checkpoints.agreement import refuse_other_data, refuse_other_preprocess
from kinema.core.spec import DataSpec, Signature
from kinema.errors import ConfigError, KinemaError
from kinema.fitting import refuse_other_classes, refuse_other_features, refuse_other_joints

log = logging.getLogger(__name__)


def compose(overrides: Iterable[str] = (), config_name: str = "config") -> DictConfig:
    """Compose a configuration as the command line does, for notebooks, tests and scripts.

    Args:
        overrides: what would stand on the command line, for example ["model=poseformer", "seed=1"].
        config_name: the root file in `conf/`.

    Returns:
        The configuration; `paths.output_dir` is `outputs/api` unless overridden.
    """
    launch.register_resolvers()
    words = list(overrides)
    if not any(word.startswith("paths.output_dir=") for word in words):
        words.append("paths.output_dir=outputs/api")
    if GlobalHydra.instance().is_initialized():  # inside a run, for example a test of the command line
        GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=str(launch.config_dir())):
        return hydra_compose(config_name=config_name, overrides=words)


def create(name: str, **overrides: Any) -> nn.Module:
    """Build a fresh network by the name of its configuration, with the default data set's joints.

    Args:
        name: a file of `conf/model/`, such as "dstformer_lite".
        overrides: constructor arguments to change.

    Returns:
        The module with freshly initialised weights.
    """
    known = {path.stem for path in (launch.config_dir() / "model").glob("*.yaml") if not path.stem.startswith("_")}
    if name not in known:
        raise ConfigError(f"No model is called {name!r}. Known: {', '.join(sorted(known))}.")
    # Merged here and not spelt as overrides: any plain value works, and a new key (a typo) is refused below.
    node = compose([f"model={name}"]).model
    unknown = [key for key in overrides if key not in node]
    if unknown:
        raise ConfigError(
            f"{name} has no argument {unknown[0]!r}. It has: {', '.join(k for k in node if k[0] != '_')}."
        )
    for key, value in overrides.items():
        node[key] = value
    return make(node)


def make(node: DictConfig, **arguments: Any) -> Any:
    """Instantiate a node with `_target_`; user errors inside come out as they are."""
    try:
        return instantiate(node, _convert_="all", **arguments)
    except InstantiationException as error:
        if isinstance(error.__cause__, KinemaError):
            raise error.__cause__ from None
        raise ConfigError(f"{node.get('_target_')}: {str(error).strip()}") from error


def explicit_model_overrides() -> dict[str, str]:
    """Constructor arguments of the model that the user typed, not those of yaml files: {"num_frames": "27"}.

    Those of a network inside the model have dotted names: {"backbone.depth": "3"}.
    """
    if not HydraConfig.initialized():
        return {}
    typed = {}
    for word in HydraConfig.get().overrides.task:
        key, _, value = word.lstrip("+").partition("=")
        if key.startswith("model."):
            typed[key.removeprefix("model.")] = value
    return typed


def model_was_chosen() -> bool:
    """Whether `model=` was typed, rather than taken from the defaults or an experiment."""
    return HydraConfig.initialized() and any(w.startswith("model=") for w in HydraConfig.get().overrides.task)


def build_model(config: DictConfig) -> nn.Module:
    """The network of a run: from `ckpt` where one is given, else fresh from `model`, with `init` weights if any.

    Raises:
        ConfigError, CheckpointError: where file and configuration contradict each other.
    """
    if config.ckpt:
        return _model_of_checkpoint(config)
    with torch.device("meta"):  # shapes and arguments are checked before memory is spent
        make(config.model)
    model = make(config.model)
    if config.init:
        from kinema.checkpoints.transfer import transfer

        log.info("init=%s: %s", config.init, transfer(model, config.init))
    return model


def _model_of_checkpoint(config: DictConfig) -> nn.Module:
    from kinema.checkpoints.arguments import flat, unknowable_of
    from kinema.checkpoints.envelopes import read_weights
    from kinema.checkpoints.load import AS_PUBLISHED, TRAINING_ONLY, identify, lent, load
    from kinema.models.registry import model_class

    found = read_weights(config.ckpt)
    family, stated = identify(found)
    arguments = flat(stated)
    # Kinema's own files tell every argument, official ones leave some open (heads, causal).
    unknowable = {} if found.record else unknowable_of(model_class(family), arguments)
    chosen: Any = get_class(config.model["_target_"])
    same_family = getattr(chosen, "registered_name", None) == family
    borrowed = lent(chosen, found, family)
    if borrowed is not None and found.path.name not in chosen.lent_files:  # of those names `load` says so itself
        log.warning(borrowed, found.path)
    if model_was_chosen() and not same_family and borrowed is None:
        raise ConfigError(
            f"{config.ckpt} holds a {family} but model={HydraConfig.get().runtime.choices['model']} was chosen. "
            f"Drop model=, the file tells its own."
        )
    recipe = _experiment()
    if recipe is not None and not same_family and borrowed is None:
        log.warning("experiment=%s is of %s, but %s holds a %s and runs so: its numbers are not those of the recipe",
                    recipe, getattr(chosen, "registered_name", None), config.ckpt, family)  # fmt: skip
    typed = explicit_model_overrides()
    # The default network may not even fit the data set of a file that holds another one.
    node = _flat_node(config.model) if typed or same_family else {}
    overrides: dict[str, Any] = {}
    for key in typed:
        wanted = node[key]
        if key in unknowable or (_last(key) in TRAINING_ONLY and key in arguments):
            overrides[key] = wanted
        elif key in arguments and _plain(arguments[key]) != _plain(wanted):
            raise ConfigError(
                f"{config.ckpt} was built with {key}={_shown(arguments[key])}, not model.{key}={_shown(wanted)}. "
                f"Use model.{key}={_shown(arguments[key])}, or drop model.{key} to follow the file."
            )
        elif key not in arguments and not same_family:
            raise ConfigError(f"{config.ckpt} holds a {family}, which has no {key}. Drop model.{key}.")
    if same_family:
        # What a file cannot tell (heads, causal) stands in the yaml of its size, if that is the one composed.
        told = {k: v for k, v in arguments.items() if k not in unknowable and _last(k) not in TRAINING_ONLY}
        other = {k: v for k, v in told.items() if node.get(k) is not None and _plain(node[k]) != _plain(v)}
        if recipe is not None and other:
            log.warning(
                "%s holds a %s of %s, experiment=%s has %s: its numbers are not those of the recipe",
                config.ckpt, family, _sizes(other), recipe, _sizes({key: node[key] for key in other}),
            )  # fmt: skip
        if all(_plain(node.get(key)) == _plain(value) for key, value in told.items()):
            open_ = [key for key in unknowable if key in node and _last(key) not in AS_PUBLISHED]
            overrides = {key: node[key] for key in open_} | overrides
    return load(config.ckpt, **overrides)


def _flat_node(node: DictConfig) -> dict[str, Any]:
    """Constructor values of a model's node under flat names, those of a network inside it as "backbone.depth"."""
    result: dict[str, Any] = {}
    container: Any = OmegaConf.to_container(node, resolve=True)
    for key, value in container.items():
        if isinstance(value, dict) and "_target_" in value:
            result[key] = getattr(get_class(value["_target_"]), "registered_name", None)
            result |= {f"{key}.{name}": one for name, one in _flat_node(node[key]).items()}
        elif key != "_target_":
            result[key] = value
    return result


def _experiment() -> str | None:
    """The recipe that was chosen, if any."""
    return HydraConfig.get().runtime.choices.get("experiment") if HydraConfig.initialized() else None


def _sizes(arguments: dict[str, Any]) -> str:
    return " ".join(f"{key}={_shown(value)}" for key, value in arguments.items())


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def _shown(value: Any) -> str:
    return str(list(value) if isinstance(value, (list, tuple)) else value).replace(" ", "")


def build_data(config: DictConfig, signature: Signature) -> Any:
    """The DataModule of `dataset`, following the model where its own values are null."""
    # Handed over after Hydra: it would turn the signature, a dataclass, into a dict.
    return make(config.dataset, _partial_=True, _recursive_=False)(signature=signature)


def build_task(config: DictConfig, model: nn.Module) -> Any:
    """The LightningModule of `task` around a model; optimiser and scheduler stay partial."""
    node = config.task
    arguments = {}
    for key in node:
        if key == "_target_":
            continue
        value = node[key]
        if isinstance(value, DictConfig) and "_target_" in value:
            arguments[key] = make(value)
        else:
            arguments[key] = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    try:
        return get_class(node["_target_"])(model=model, **arguments)
    except TypeError as error:
        raise ConfigError(f"task: {error}. Its keys are those of {node['_target_']}.") from error


def task_name(config: DictConfig) -> str:
    """Name of the task of a configuration, before it is built."""
    task: Any = get_class(config.task["_target_"])
    return str(task.name)


def refuse_unserved(task: str, spec: DataSpec, config: DictConfig) -> None:
    """Refuse a data set that does not serve a task; before the task is built, whose keys may follow the data set.

    Raises:
        ConfigError: its last sentence is an override that works.
    """
    if task not in spec.tasks:
        remedy = f"Use dataset={_SERVING.get(task, 'synthetic')}, or another task."
        if len(spec.tasks) == 1:
            (other,) = spec.tasks
            fitting = "" if config.ckpt or model_was_chosen() or other not in _FITTING else f" model={_FITTING[other]}"
            remedy = f"Use task={other}{fitting}."
        raise ConfigError(
            f"dataset={config.dataset.name} serves "
            f"{', '.join(sorted(spec.tasks)) or 'prediction of new videos only'}, not task={task}. {remedy}"
        )


def check(task: Any, signature: Signature, spec: DataSpec, config: DictConfig) -> None:
    """Refuse combinations that cannot work, before any array is opened.

    Raises:
        ConfigError: its last sentence is an override that works.
    """
    dataset = config.dataset.name
    if signature.output not in task.outputs:
        remedy = f"Use model={_FITTING.get(task.name, 'dstformer_tiny')}, or another task."
        if config.ckpt:
            remedy = f"Use task={_TASK_OF.get(signature.output, 'lifting')}, or another checkpoint."
            if config.mode == "render" and signature.output in _TASK_OF:
                remedy = f"Use mode=predict task={_TASK_OF[signature.output]} input=CLIP, which draws clips."
        raise ConfigError(
            f"task={task.name} needs a model that gives {' or '.join(sorted(task.outputs))}, but "
            f"{config.ckpt or _model_name(config)} gives {signature.output}. {remedy}"
        )
    refuse_unserved(task.name, spec, config)
    if config.mode == "train" and config.dataset.get("subjects_unlabeled") and "unlabeled" not in task.sources:
        raise ConfigError(
            f"task={task.name} trains on labelled data alone, and dataset.subjects_unlabeled names persons without "
            "labels. Use task=lifting_semi model.trajectory=true, or dataset.subjects_unlabeled=[]."
        )
    if config.mode in ("train", "test") and not spec.has_3d and "pose3d" in task.needs:
        raise ConfigError(f"dataset={dataset} has no 3D truth. Use mode=predict or mode=render with it.")
    origin = str(config.ckpt) if config.ckpt else _model_name(config)
    source = getattr(task.model, "provenance", None)
    if source is not None:
        refuse_other_preprocess(origin, source.preprocess, spec, dataset)
    if signature.output == "noise":
        refuse_other_features(signature, spec, config, origin)
    else:
        refuse_other_joints(signature, spec, config, origin)
    if spec.classes is not None:
        refuse_other_classes(signature, spec, config, origin)
    frames = config.dataset.get("frames")
    if frames is not None:
        fed = frames - (signature.in_channels == 5)  # velocities lead to the next frame, so the last one is dropped
        fits = {"exact": fed == signature.frames, "max": fed <= signature.frames, "any": True}
        if not fits[signature.frames_rule]:
            raise ConfigError(
                f"{origin} was built for {signature.frames} frames but dataset.frames={frames}. "
                f"Use model.num_frames={frames} (a freshly trained model), "
                f"or drop dataset.frames to follow the model (dataset.frames=null)."
            )
    if spec.classes is None and signature.output != "noise" and signature.in_channels not in (2, 3, 5):
        raise ConfigError(f"{origin} takes {signature.in_channels} channels; 2 (x, y), 3 (x, y, score) or 5 (and the "
                          f"way to the next frame) exist. Use model.in_channels=2.")  # fmt: skip
    if source is not None:
        trained = (source.config or {}).get("dataset") or {}
        classifies = signature.classes is not None
        refuse_other_data(origin, source.spec, trained, spec, plain(config)["dataset"], classifies=classifies)
    task.check(signature, spec)
    if config.objective.startswith("val/") or config.objective.startswith("test/"):
        known = set(task.scalars())
        if config.objective.split("/", 1)[1] not in known:
            raise ConfigError(
                f"objective={config.objective} is not measured by the protocol; it gives {', '.join(sorted(known))}. "
                f"Use objective=val/{sorted(known)[0]}."
            )


# A network and a data set to name when the chosen ones do not belong to a task.
_FITTING = {"action": "stgcnpp", "prediction": "smrnet_tiny"}
_TASK_OF = {"logits": "action", "embedding": "action", "noise": "prediction"}
_SERVING = {"action": "cmu_actions", "prediction": "cmu_motion"}


def _model_name(config: DictConfig) -> str:
    if HydraConfig.initialized():
        return f"model={HydraConfig.get().runtime.choices['model']}"
    return str(config.model["_target_"]).rsplit(".", 1)[-1]


def build_trainer(config: DictConfig) -> Any:
    """The Lightning Trainer with the callbacks and loggers of the run.

    Raises:
        ConfigError: for hardware or precision this machine cannot serve.
    """
    import lightning.pytorch as pl

    quieten_lightning()
    _check_hardware(config)
    callbacks = [make(node) for node in config.callbacks.values() if node is not None]
    if not config.trainer.enable_progress_bar:
        callbacks = [one for one in callbacks if not isinstance(one, pl.callbacks.ProgressBar)]
    loggers = [make(node) for node in config.logger.values() if node is not None]
    if not loggers:
        callbacks = [one for one in callbacks if not isinstance(one, pl.callbacks.LearningRateMonitor)]
    keeps = any(isinstance(one, pl.callbacks.ModelCheckpoint) for one in callbacks)
    return make(config.trainer, callbacks=callbacks, logger=loggers or False, enable_checkpointing=keeps)


def _check_hardware(config: DictConfig) -> None:
    trainer = config.trainer
    wants_gpu = trainer.accelerator in ("gpu", "cuda")
    has_gpu = torch.cuda.is_available()
    if wants_gpu and not has_gpu:
        raise ConfigError(f"trainer.accelerator={trainer.accelerator} but no GPU is visible to torch. Use trainer=cpu.")
    on_cpu = trainer.accelerator == "cpu" or (trainer.accelerator == "auto" and not has_gpu)
    if on_cpu and str(trainer.precision).startswith("16"):
        raise ConfigError(
            f"trainer.precision={trainer.precision} needs a GPU (on a CPU it would silently become bfloat16). "
            f"Use trainer.precision=32, or bf16-mixed."
        )
    if HydraConfig.initialized() and str(trainer.devices) not in ("1", "auto"):
        launcher = str(HydraConfig.get().launcher.get("_target_", ""))
        if "joblib" in launcher.lower() and HydraConfig.get().launcher.get("n_jobs", 1) != 1:
            raise ConfigError(
                f"trainer.devices={trainer.devices} with a parallel launcher on one machine kills its workers. "
                f"Use hydra/launcher=basic, or trainer.devices=1."
            )


def quieten_lightning() -> None:
    """Keep one line per event: Lightning's tips and doubled messages are switched off."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        if logger.level in (logging.NOTSET, logging.INFO):
            logger.setLevel(logging.WARNING)
    for text in (
        r".*isinstance\(treespec, LeafSpec\).*",  # lightning 2.6 with torch 2.13
        r".*does not have many workers.*",  # a gather from a mapped array is faster than a process
        r".*Experiment logs directory .* exists.*",
        r".*Checkpoint directory .* exists and is not empty.*",
        r".*The `LightningModule\.configure_optimizers.*",
        r".*number of training batches .* is smaller than the logging interval.*",
        r".*The dirpath has changed from.*",  # RunCheckpoint carries the state over
        r".*`torch.jit.script` is deprecated.*",
        r".*lr_scheduler.step\(\)` before `optimizer.step\(\)`.*",
        r".*Precision .* is not supported by the model summary.*",
        r".*IterableDataset.*has `__len__` defined.*",
        r".*Found .* module\(s\) in eval mode at the start of training.*",
    ):
        warnings.filterwarnings("ignore", message=text)


def plain(config: DictConfig) -> dict[str, Any]:
    """The configuration as plain containers, resolved: what checkpoints and reports keep."""
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def output_dir(config: DictConfig) -> Path:
    """The run's folder, absolute."""
    return Path(config.paths.output_dir).absolute()
