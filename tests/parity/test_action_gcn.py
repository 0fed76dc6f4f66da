"""ST-GCN++, plain ST-GCN and CTR-GCN against the published program: graphs, networks, gradients, averaged clips."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import kinema
from kinema.core.graphs import adjacency, hop_distance, layout
from kinema.models.ctrgcn import CTRGCN
from kinema.models.layers.pyskl import ctrgcn_arguments, stgcn_arguments
from kinema.models.stgcn import STGCN
from tests.models.configs import arguments
from tests.parity.golden import Arrays, Case, cases

pytestmark = pytest.mark.parity


@cases("action", "h_gcn")
def test_graph_networks(case: Case) -> None:
    for path in sorted(case.path.iterdir()):
        if path.name == "graphs.npz":
            check_graphs(case)
        elif path.suffix == ".json":
            check_network(case, path.stem)
    case.finish()


def check_graphs(case: Case) -> None:
    arrays = case.arrays("graphs.npz")
    for name in arrays:
        of, what, *rest = name.split("__")
        graph = layout(of)
        hops = int(rest[0].removeprefix("hop")) if rest else 1
        if what == "inward":
            found = np.array(graph.inward)
        elif what == "center":
            found = np.array(graph.centre)
        elif what == "hop_distance":
            found = hop_distance(graph, hops)
        else:
            found = adjacency(graph, what, hops)
        case.close(name, found, arrays[name], atol=1e-12)


def check_network(case: Case, name: str) -> None:
    config, arrays = case.json(f"{name}.json"), case.arrays(f"{name}.npz")
    clips = torch.from_numpy(arrays["keypoint"])  # (N, clips, M, T, V, C)
    with case.check(f"{name}: network"):
        if (case.path / f"{name}.pth").is_file():
            model = from_file(case, name, config, clips)
        else:
            model = from_seed(case, name, config, arrays, clips)
        with_grads = bool(arrays.names("grad__"))
        pose = clips.flatten(0, 1).requires_grad_(with_grads)
        with stages_of(model) as stages, torch.set_grad_enabled(with_grads):
            logits = model(pose)
        check_outputs(case, name, arrays, model, pose, logits.detach(), stages)
        if with_grads:
            check_gradients(case, name, arrays, model, pose, logits)


def told(config: dict[str, Any], clips: Tensor) -> tuple[type[nn.Module], dict[str, Any]]:
    """Class and arguments from the official options and the sizes of the input."""
    refined = config["backbone"]["type"] == "CTRGCN"
    values = ctrgcn_arguments(config) if refined else stgcn_arguments(config)
    sizes = {"persons": clips.shape[2], "num_joints": clips.shape[4], "mask_persons": False}
    return CTRGCN if refined else STGCN, {**values, **sizes}


def from_file(case: Case, name: str, config: dict[str, Any], clips: Tensor) -> nn.Module:
    path = case.file(f"{name}.pth")
    made, expected = told(config, clips)
    model = kinema.load(path, **expected)
    assert isinstance(model, made)
    provenance: Any = model.provenance
    assert provenance.envelope == "mmcv"
    # Alone, the file tells the same but for what it does not hold; the graph of a bare 17-joint file is taken as COCO.
    meta = torch.load(path, weights_only=False, map_location="cpu").get("meta") or {}
    if "config" in meta:
        alone = kinema.load(path, persons=clips.shape[2]).arguments
        apart = {key: (alone[key], value) for key, value in expected.items() if alone[key] != value}
        assert not apart, apart
    return model


def from_seed(case: Case, name: str, config: dict[str, Any], arrays: Arrays, clips: Tensor) -> nn.Module:
    """A network of the released size, filled by the rule of the topic's README."""
    made, expected = told(config, clips)
    yaml = arguments("ctrgcn" if made is CTRGCN else "stgcnpp", clips.shape[4])
    model = made(**{**yaml, **expected}).eval()
    state = model.state_dict()
    keys = sorted(state)
    assert keys == list(arrays["keys"])
    assert len(keys) == config["n_keys"]
    assert sum(p.numel() for p in model.parameters()) == config["n_params"]
    graph = torch.from_numpy(adjacency(layout(expected["layout"]), expected.get("graph_mode", "spatial"))).float()
    statistics = torch.from_numpy(arrays["running_stats"])
    used = 0
    for number, key in enumerate(keys):
        shape = tuple(state[key].shape)
        drawn = np.random.RandomState(config["weight_seed"] + number).standard_normal(shape)
        last = key.rpartition(".")[2]
        if last == "num_batches_tracked":
            continue
        if last in ("running_mean", "running_var"):
            state[key] = statistics[used : used + shape[0]]
            used += shape[0]
        elif key == "backbone.A":
            state[key] = graph
        else:
            state[key] = graph + torch.from_numpy(0.05 * drawn).float() if last == "A" else filled(last, drawn)
    assert used == len(statistics)
    model.load_state_dict(state)
    sums = {key: float(tensor.double().sum()) for key, tensor in model.state_dict().items()}
    for key, total in zip(keys, arrays["key_sums"], strict=True):
        if not key.endswith("num_batches_tracked"):
            case.close(f"{name}: sum of {key}", sums[key], total, atol=1e-4)
    return model


def filled(last: str, drawn: np.ndarray) -> Tensor:
    if last == "alpha":
        values = 0.25 + 0.05 * drawn
    elif drawn.ndim == 1:
        values = 1 + 0.2 * drawn if last == "weight" else 0.1 * drawn
    else:
        values = drawn / np.sqrt(np.prod(drawn.shape[1:]))
    return torch.from_numpy(np.asarray(values)).float()


@contextmanager
def stages_of(model: nn.Module) -> Iterator[list[Tensor]]:
    """Outputs of every stage of the passes made inside."""
    seen: list[Tensor] = []
    stages = model.backbone.net if isinstance(model, CTRGCN) else model.backbone.gcn
    hooks = [stage.register_forward_hook(lambda _, __, out: seen.append(out.detach())) for stage in stages]
    yield seen
    for hook in hooks:
        hook.remove()


def check_outputs(
    case: Case, name: str, arrays: Arrays, model: nn.Module, pose: Tensor, logits: Tensor, stages: list[Tensor]
) -> None:
    count, views = arrays["keypoint"].shape[:2]
    by_clip = logits.unflatten(0, (count, views))
    with torch.no_grad():
        features = model.feature_maps(pose)
    full = "features_mean" in arrays
    found: dict[str, tuple[Any, float]] = {
        "features": (features, 1e-4),
        "logits": (logits, 5e-5 if full else 1e-5),
        "prob": (by_clip.softmax(-1).mean(1), 1e-5),
        "score": (by_clip.mean(1), 1e-5),
        "stage_shapes": (np.array([tuple(out.shape) for out in stages]), 0.0),
        "stage_mean": (torch.cat([out.mean((0, 2, 3)) for out in stages]), 1e-5),
        "stage_std": (torch.stack([out.double().std(correction=0).float() for out in stages]), 5e-5),
        "features_mean": (features.mean((3, 4)), 5e-5),
        "features_every32": (features[:, :, ::32, ::4], 5e-4),
    }
    for key, (value, tolerance) in found.items():
        if key in arrays:
            case.close(f"{name}: {key}", value, arrays[key], atol=tolerance)


def check_gradients(case: Case, name: str, arrays: Arrays, model: nn.Module, pose: Tensor, logits: Tensor) -> None:
    loss = F.cross_entropy(logits, torch.from_numpy(arrays["label"]))
    case.close(f"{name}: loss", loss, arrays["loss"], atol=1e-5)
    loss.backward()
    gradients = dict(model.named_parameters())
    without = sorted(key for key, parameter in gradients.items() if parameter.grad is None)
    with case.check(f"{name}: parameters without gradient"):
        assert without == sorted(arrays["no_grad"])
    close = [("grad_input", pose.grad)]
    close += [(key, gradients[re.sub("^grad__", "", key)].grad) for key in arrays.names("grad__")]
    with case.check(f"{name}: names of gradients"):
        assert {key.removeprefix("grad__") for key in arrays.names("grad__")} | set(without) == set(gradients)
    for key, found in close:
        expected = arrays[key]
        case.close(f"{name}: {key}", found, expected, atol=5e-5 * float(np.abs(expected).max()))
