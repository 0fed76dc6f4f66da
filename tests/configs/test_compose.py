"""Every file of `conf/` composes, its keys are the constructor's, and nothing is hidden or dead."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

import pytest
import torch
from hydra.utils import get_class, get_object
from omegaconf import DictConfig, OmegaConf
from torch import nn

from kinema import launch
from kinema.composition import build_data, build_task, check, compose, make
from kinema.core.spec import Signature
from kinema.errors import ConfigError
from kinema.protocols.registry import ACTION

CONF = launch.config_dir()
# Given by composition at run time, not by yaml.
_GIVEN = {"model", "signature", "self"}


def _names(group: str) -> list[str]:
    root = CONF / group
    found = root.rglob("*.yaml") if group == "experiment" else root.glob("*.yaml")
    paths = [path for path in sorted(found) if not path.stem.startswith("_")]
    return [str(path.relative_to(root).with_suffix("")) for path in paths]


EXPERIMENTS = _names("experiment")


def _parameters(target: str) -> set[str]:
    cls = get_object(target)
    names: set[str] = set()
    for one in inspect.getmro(cls) if inspect.isclass(cls) else [cls]:
        signature = inspect.signature(one.__init__ if inspect.isclass(one) else one)
        names |= {p.name for p in signature.parameters.values() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        if not any(p.kind == p.VAR_KEYWORD for p in signature.parameters.values()):
            break  # without **options the bases add nothing
    return names - _GIVEN


@pytest.mark.parametrize("group", ["task", "model", "dataset", "trainer", "logger", "callbacks", "debug"])
def test_every_option_composes(group: str) -> None:
    assert _names(group)
    for name in _names(group):
        config = compose([f"{group}={name}"])
        if list(config.dataset.tasks) == ["action"]:  # the default task and model lift poses
            config = compose([f"{group}={name}", "task=action", "model=stgcnpp"])
        assert OmegaConf.to_container(config, resolve=True)


@pytest.mark.parametrize("group", ["model", "dataset", "task"])
def test_yaml_keys_are_the_constructors(group: str) -> None:
    for name in _names(group):
        node = compose([f"{group}={name}"])[group]
        keys = {str(key) for key in node if not str(key).startswith("_")}
        wanted = _parameters(node["_target_"])
        assert keys <= wanted, f"{group}/{name}: dead keys {sorted(keys - wanted)}"
        assert wanted <= keys, f"{group}/{name}: hidden parameters {sorted(wanted - keys)}"


@pytest.mark.parametrize("group", ["trainer", "callbacks", "logger"])
def test_library_nodes_have_no_dead_keys(group: str) -> None:
    for name in _names(group):
        if name in ("wandb", "mlflow"):  # their packages are extras
            continue
        node = compose([f"{group}={name}"])[group]
        nodes = [node] if "_target_" in node else [child for child in node.values() if child is not None]
        for one in nodes:
            keys = {str(key) for key in one if not str(key).startswith("_")}
            wanted = _parameters(one["_target_"])
            assert keys <= wanted, f"{group}/{name}: {one['_target_']} has no {sorted(keys - wanted)}"


@pytest.mark.parametrize("name", _names("model"))
def test_every_model_builds_on_meta_and_says_what_it_is(name: str) -> None:
    with torch.device("meta"):
        model = make(compose([f"model={name}"]).model)
    assert model.signature.frames > 0
    assert all(parameter.device.type == "meta" for parameter in model.parameters())


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_fits_together(name: str) -> None:
    config = compose([f"experiment={name}"])
    assert isinstance(config, DictConfig)
    with torch.device("meta"):
        model = make(config.model)
    data = build_data(config, model.signature)
    task = build_task(config, model)
    check(task, model.signature, data.spec, config)


class Given(nn.Module):
    """Gives random outputs of a network's shape, which depend on one parameter."""

    def __init__(self, signature: Signature) -> None:
        super().__init__()
        self.signature = signature
        self.size = nn.Parameter(torch.ones(()))
        twin = dataclasses.replace(signature, joints_out=1, trajectory=False)
        self.trajectory = Given(twin) if signature.trajectory else None

    def forward(
        self, pose: torch.Tensor, persons: torch.Tensor | None = None, *others: object, **named: object
    ) -> torch.Tensor:
        if self.signature.output == "noise":
            return self.size * torch.randn_like(pose)
        if persons is not None:
            out = self.size * torch.randn(len(pose), self.signature.classes or 8)
            return out if self.signature.output == "logits" else nn.functional.normalize(out, dim=-1)
        frames = pose.shape[1] - sum(self.signature.context)
        return self.size * torch.randn(len(pose), frames, self.signature.joints_out, 3)


def check_losses(config: DictConfig) -> None:
    """Compute the losses of a configuration once, on random poses of its data's skeletons."""
    with torch.device("meta"):
        signature = make(config.model).signature
    spec = build_data(config, signature).spec
    task = build_task(config, Given(signature))
    task.describe(spec=spec.to_dict(), config={})
    torch.manual_seed(0)
    if signature.output == "noise":
        batch = {"motion": torch.randn(2, spec.frames, signature.num_features), "draw": torch.arange(2)}
    elif signature.output == "pose3d":
        margin = sum(signature.context)
        batch = {
            "pose": torch.randn(2, 4 + margin, len(spec.skeleton2d), signature.in_channels),
            "pose2d": torch.randn(2, 4 + margin, len(spec.skeleton2d), 3),
            "pose3d": torch.randn(2, 4, len(spec.skeleton), 3),
        }
    else:
        shape = (4, signature.persons, 4, signature.joints, signature.in_channels)
        persons = torch.ones(4, signature.persons, dtype=torch.bool)
        batch = {"pose": torch.randn(shape), "persons": persons, "label": torch.tensor([0, 0, 1, 1])}
    if config.dataset.get("subjects_unlabeled"):
        batch = {"labeled": batch, "unlabeled": batch | {"intrinsics": torch.randn(2, 9)}}
    terms = task.loss(batch)
    terms.pop("top1", None)  # no loss, and may be 0
    wanted = {"loss"} | {name for name, weight in config.task.get("losses", {}).items() if weight}
    assert set(terms) == wanted - (set() if "labeled" in batch else {"projection", "bone_length"})
    assert all(term.isfinite() and term > 0 for term in terms.values()), terms
    terms["loss"].backward()
    assert task.model.size.grad.isfinite()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_can_compute_its_losses(name: str) -> None:
    check_losses(compose([f"experiment={name}"]))


def test_an_impossible_recipe_would_be_caught() -> None:
    with pytest.raises(ConfigError, match="mpi_inf_3dhp17, which has no published joint weights"):
        check_losses(compose(["experiment=motionagformer/mpi_inf_3dhp_s", "task.losses.weighted_mpjpe=1"]))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_has_the_last_word_on_its_choices(name: str) -> None:
    assert OmegaConf.load(CONF / "experiment" / f"{name}.yaml").defaults[-1] == "_self_"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_says_where_it_comes_from(name: str) -> None:
    text = (CONF / "experiment" / f"{name}.yaml").read_text()
    assert text.startswith("# @package _global_\n# "), "an experiment begins with its source and expected number"


def _chosen(entry: DictConfig) -> list[tuple[str, str]]:
    """Groups of ours that a line of a defaults list overrides."""
    pairs = [(str(key).removeprefix("override ").strip(), str(value)) for key, value in entry.items()]
    return [(group, choice) for group, choice in pairs if not group.startswith("/hydra")]


@pytest.mark.parametrize("name", _names("search"))
def test_every_search_space_names_existing_keys(name: str) -> None:
    node = OmegaConf.load(CONF / "search" / f"{name}.yaml")
    assert isinstance(node, DictConfig)
    config = compose([f"{group.lstrip('/')}={choice}" for entry in node.defaults for group, choice in _chosen(entry)])
    for key in node.hydra.sweeper.params:
        assert OmegaConf.select(config, str(key), default=inspect) is not inspect, f"{name}: {key} is no key"


def test_numbers_in_yaml_are_numbers() -> None:
    """1e-4 and the like: what YAML 1.1 would read as a string must not slip through."""

    def walk(node: object, where: str) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                walk(value, f"{where}.{key}")
        elif isinstance(node, str):
            try:
                float(node)
            except ValueError:
                return
            raise AssertionError(f"{where} is the string {node!r}")

    for path in sorted(CONF.rglob("*.yaml")):
        container = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        if "dataset" in path.parts or "task" in path.parts or "model" in path.parts or "trainer" in path.parts:
            walk(container, str(Path(path).relative_to(CONF)))


@pytest.mark.parametrize("name", ["ma52", "ma52_fork", "ntu60", "ntu120_oneshot_compat"])
def test_bones_are_neither_shifted_nor_cropped_and_the_remedy_works(name: str) -> None:
    words = ["task=action", f"dataset={name}", "dataset.stream=bone"]

    def augment(*more: str) -> list[dict[str, dict[str, float]]]:
        node = compose([*words, *more]).dataset
        make(node, _partial_=True, _recursive_=False)(signature=None)
        return list(OmegaConf.to_container(node)["augment"])  # type: ignore[call-overload,index]

    with pytest.raises(ConfigError, match=r"dataset\.stream=bone holds differences") as refused:
        augment()
    (move,) = augment(*re.findall(r"'(dataset\.[^']+)'", str(refused.value)))
    assert move["random_move"]["angle"] == 10
    assert move["random_move"]["shift"] == 0
    augment("dataset.stream=joint")


def test_options_of_protocols_in_yaml_are_the_constructors() -> None:
    options = compose(["task=action"]).task.protocol_options
    for name, protocol in {one.name: one for one in ACTION.values()}.items():
        arguments = set(inspect.signature(protocol.__init__).parameters) - {"self", "windows", "classes"}
        assert {str(key) for key in options[name]} == arguments - {"training_counts"}


def test_get_class_finds_every_target() -> None:
    for group in ("model", "dataset", "task"):
        for name in _names(group):
            assert get_class(compose([f"{group}={name}"])[group]["_target_"])
