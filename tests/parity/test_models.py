"""Networks against the published programs: DSTformer, PoseFormer V1 and V2, VideoPose3D."""

from __future__ import annotations

import copy
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kinema.inference.slide import slide
from kinema.models.dstformer import DSTformer
from kinema.models.poseformer import PoseFormer
from kinema.models.poseformerv2 import PoseFormerV2
from kinema.models.videopose3d import VideoPose3D
from tests.parity.golden import Arrays, Case, cases
from tests.parity.official import ours

pytestmark = pytest.mark.parity

# What shapes can be read as in more than one way; the right one stands in config.json. A ratio is rounded.
AMBIGUOUS = {"mlp_ratio", "num_joints", "in_channels", "filter_widths", "dense"}


def weights(case: Case) -> dict[str, dict[str, Tensor]]:
    """Every state dict of the case's one checkpoint by its key in the file, without the DataParallel prefix."""
    (path,) = [path for path in case.path.iterdir() if path.suffix in {".bin", ".pth", ".pt"}]
    content = torch.load(case.file(path.name), map_location="cpu", weights_only=True)
    return {
        key: {name.removeprefix("module."): tensor for name, tensor in state.items()}
        for key, state in content.items()
        if key.startswith("model") and state is not None
    }


def build(family: type[nn.Module], config: dict[str, Any], state: dict[str, Tensor], **defaults: Any) -> Any:
    """Our model from the official options, which must agree with what `recognise` reads from the file."""
    told = {**defaults, **ours(config)}
    recognised = family.recognise({name: tuple(tensor.shape) for name, tensor in state.items()})
    assert recognised is not None, f"{family.__name__} does not recognise the file"
    apart = {name for name, value in recognised.items() if told.get(name, value) != value}
    assert apart <= AMBIGUOUS, f"recognised {recognised}, config {config}"
    model = family(**{**family.unknowable, **recognised, **told}).eval()
    model.load_state_dict(state, strict=True)
    return model


def relative(case: Case, what: str, found: Tensor, expected: np.ndarray) -> None:
    """float64: 1e-9 of the largest value."""
    case.close(what, found, expected, rtol=1e-9, atol=1e-9 * float(np.abs(expected).max()))


@cases("motionbert", "dstformer")
@torch.no_grad()
def test_dstformer(case: Case) -> None:
    arrays = case.arrays()
    model = build(DSTformer, case.json(), weights(case)["model_pos"])
    double = copy.deepcopy(model).double()
    lengths = sorted(int(name.removeprefix("x_T")) for name in arrays if re.fullmatch(r"x_T\d+", name))
    for length in lengths:
        pose = torch.from_numpy(arrays[f"x_T{length}"])
        case.close(f"out_T{length}", model(pose), arrays[f"out_T{length}"], atol=2e-5)
        case.close(f"rep_T{length}", model.features(pose), arrays[f"rep_T{length}"], atol=2e-5)
        relative(case, f"out64_T{length}", double(pose.double()), arrays[f"out64_T{length}"])
        relative(case, f"rep64_T{length}", double.features(pose.double()), arrays[f"rep64_T{length}"])
    with torch.enable_grad():  # the gradient is that of the longest clip
        pose = torch.from_numpy(arrays[f"x_T{lengths[-1]}"]).double().requires_grad_()
        (double(pose) * torch.from_numpy(arrays["grad_w"])).sum().backward()
    relative(case, "grad_x64", pose.grad, arrays["grad_x64"])
    case.finish()


@cases("poseformer", "v1_")
@torch.no_grad()
def test_poseformer(case: Case) -> None:
    arrays, config = case.arrays(), case.json()
    model = build(PoseFormer, config, weights(case)["model_pos"])
    seen: dict[str, Tensor] = {}
    for name in ("Spatial_norm", "Temporal_norm", "weighted_mean"):
        model.get_submodule(name).register_forward_hook(
            lambda _, __, out, key=name: seen.__setitem__(f"{key.lower()}_out", out)
        )
    check_windows(case, model, arrays, config, seen)
    case.finish()


@cases("poseformer", "v2_")
@torch.no_grad()
def test_poseformerv2(case: Case) -> None:
    arrays, config = case.arrays(), case.json()
    model = build(PoseFormerV2, config, weights(case)["model_pos"])
    seen: dict[str, Tensor] = {}
    model.Freq_embedding.register_forward_pre_hook(lambda _, given: seen.__setitem__("dct_tokens_in", given[0]))
    places = {"Spatial_norm": "spatial_norm_out", "Temporal_norm": "temporal_norm_out"}
    places |= {f"blocks.{level}": f"block{level}_out" for level in range(len(model.blocks))}
    for name, key in places.items():
        model.get_submodule(name).register_forward_hook(lambda _, __, out, key=key: seen.__setitem__(key, out))
    check_windows(case, model, arrays, config, seen)
    case.finish()


def check_windows(
    case: Case, model: nn.Module, arrays: Arrays, config: dict[str, Any], seen: dict[str, Tensor]
) -> None:
    """Parameters, outputs and what hooks have `seen` of a network of windows, alone, sliding and in float64."""
    with case.check("params"):
        assert sum(p.numel() for p in model.parameters()) == config["params"]
    pose = torch.from_numpy(arrays["input"])
    case.close("output", model(pose), arrays["output"], atol=1e-5)
    for name in arrays.names():
        if name in seen:  # the spatial stage keeps frames and batch apart, the published one folds them
            found = seen[name].flatten(0, 1) if name.startswith("spatial") else seen[name]
            # float32: coefficients and tokens of V2 reach tens
            case.close(name, found, arrays[name], atol=1e-5, rtol=1e-6)
    case.close("slide", slide(model, pose), arrays["output"], atol=1e-5)
    relative(case, "output_f64", model.double()(pose.double()), arrays["output_f64"])


@cases("poseformer", "vp3d_")
@torch.no_grad()
def test_videopose3d(case: Case) -> None:
    arrays, config = case.arrays(), case.json()
    states = weights(case)
    model = build(VideoPose3D, config, states["model_pos"], trajectory=False)
    check_facts(case, model, config)
    sequence = torch.from_numpy(arrays["input_seq"])
    case.close("output_seq", model(sequence), arrays["output_seq"], atol=1e-5)
    case.close("slide", slide(model, sequence, chunk=1), arrays["output_seq"], atol=1e-5)
    relative(case, "output_seq_f64", copy.deepcopy(model).double()(sequence.double()), arrays["output_seq_f64"])
    if "input_window" in arrays:
        window = torch.from_numpy(arrays["input_window"])
        case.close("output_window", model(window), arrays["output_window"], atol=1e-5)
        case.close("first frames", window, sequence[:, : window.shape[1]])
    if "traj_output_seq" in arrays:
        twin = {f"trajectory.{name}": tensor for name, tensor in states["model_traj"].items()}
        both = build(VideoPose3D, config, {**states["model_pos"], **twin}, trajectory=True)
        out, slot = both(sequence), both.root
        case.close("traj_output_seq", out[:, :, slot : slot + 1], arrays["traj_output_seq"], atol=1e-5)
        others = [joint for joint in range(out.shape[2]) if joint != slot]
        case.close("joints beside it", out[:, :, others], arrays["output_seq"][:, :, others], atol=1e-5)
    if "train_input_window" in arrays:
        check_training(case, model)
    case.finish()


def check_facts(case: Case, model: VideoPose3D, config: dict[str, Any]) -> None:
    """Parameter count, receptive field and padding; the shifts of the full model, per level, sum to its own."""
    with case.check("params"):
        assert sum(p.numel() for p in model.parameters()) == config["params"]
    with case.check("receptive field, padding, shift"):
        assert model.signature.frames == config["receptive_field"]
        pad, shift = sum(config["pad"]), sum(config["causal_shift"])
        assert model.signature.context == (pad + shift, pad - shift)
    with case.check("shifts of the strided form"):
        taps = [width // 2 if config["causal"] else 0 for width in config["filter_widths"]]
        assert config.get("optimized1f_causal_shift", taps) == taps


def check_training(case: Case, model: VideoPose3D) -> None:
    """One pass of the strided form with batch statistics, and the running statistics after it."""
    arrays = case.arrays()
    model.set_bn_momentum(0.1)
    model.dropout.p = 0.0
    model.train()
    out = model(torch.from_numpy(arrays["train_input_window"]))
    case.close("train_output_window", out, arrays["train_output_window"], atol=1e-5)
    for name in arrays.names("train_"):
        match = re.fullmatch(r"train_(expand_bn|layers_bn)[._]?(\d*)_(running_mean|running_var)_after", name)
        if match:
            norm = model.get_submodule(".".join(filter(None, match.groups()[:2])))
            case.close(name, getattr(norm, match[3]), arrays[name], atol=1e-5)
