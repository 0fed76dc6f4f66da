"""SMRNet and HumanMAC against the published programs: outputs, what stands in between, and the form for samplers."""

from __future__ import annotations

import inspect
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import kinema
from kinema.checkpoints.load import OFFICIAL_NAMES
from kinema.inference.denoise import denoiser
from kinema.models.humanmac import HumanMAC
from kinema.models.layers.noise import timestep_embedding
from kinema.models.registry import model_class
from kinema.models.smrnet import SMRNet
from tests.parity.golden import Arrays, Case, cases

pytestmark = pytest.mark.parity

FAMILIES: dict[str, type[nn.Module]] = {"smrnet": SMRNet, "humanmac": HumanMAC}


def ours(config: dict[str, Any], family: str) -> dict[str, Any]:
    """Official constructor values under our names, and nothing else; HumanMAC calls its coefficients frames."""
    names = {**OFFICIAL_NAMES, "num_frames": "kept_coeffs"}
    values = {names.get(name, name): value for name, value in config.items()}
    return {name: values[name] for name in inspect.signature(FAMILIES[family]).parameters if name in values}


def tolerance(case: Case) -> float:
    """What the case's own README says; without one, the rounding of float32 sums."""
    page = case.file("README.md")
    told = re.search(r"Tolerance: abs ([0-9.e+-]+\d)", page.read_text()) if page.exists() else None
    return float(told[1]) if told else 5e-6 * float(max(1, np.abs(case.arrays()["out_cond"]).max()))


def by_rule(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    """The weight rule of the topic's README: normal numbers by key and seed."""
    state = {}
    for k, name in enumerate(sorted(shapes)):
        shape = shapes[name]
        drawn = np.random.RandomState(seed + k).standard_normal(shape)
        if len(shape) == 1:
            owner, _, last = name.rpartition(".")
            norm = last == "weight" and owner.rpartition(".")[2] in ("norm", "norm2", "text_norm")
            drawn = 0.1 * drawn + norm
        else:
            drawn = drawn / np.sqrt(shape[-1])
        state[name] = torch.from_numpy(drawn.astype(np.float32))
    return state


def network(case: Case, family: str) -> Any:
    """The network of a case: from its checkpoint file, or with weights by the rule."""
    arguments = ours(case.json(), family)
    open_ = {name: arguments[name] for name in FAMILIES[family].unknowable if name in arguments}
    files = [path.name for path in case.path.iterdir() if path.suffix in (".pt", ".pth")]
    if files:
        (name,) = files
        model = kinema.load(case.file(name), **open_)
        assert model.provenance.family == family
        assert set(model.provenance.guessed) == set(FAMILIES[family].unknowable) - set(open_)
    else:
        arrays = case.arrays()
        made = model_class(family)(**{**FAMILIES[family].unknowable, **arguments})
        state = {key: tuple(tensor.shape) for key, tensor in made.state_dict().items()}
        keys = [str(key) for key in arrays["keys"]]
        shapes = [tuple(int(n) for n in re.findall(r"\d+", str(shape))) for shape in arrays["shapes"]]
        with case.check("keys and shapes"):
            assert dict(zip(keys, shapes, strict=True)) == state
        recognised = FAMILIES[family].recognise(dict(zip(keys, shapes, strict=True)))
        with case.check("recognised"):
            assert recognised == {name: arguments[name] for name in recognised or {}}
        with case.check("n_params"):
            assert sum(p.numel() for p in made.parameters()) == int(arrays["n_params"])
        made.load_state_dict(by_rule(state, int(case.json()["seed"])), strict=True)
        model = made.eval()
    with case.check("arguments"):
        assert {name: model.arguments[name] for name in arguments} == arguments
    return model


def watch(model: nn.Module, places: dict[str, str]) -> dict[str, Tensor]:
    """Fill a dict with the outputs of modules, by the names that `places` gives them."""
    seen: dict[str, Tensor] = {}
    for name, key in places.items():
        model.get_submodule(name).register_forward_hook(lambda _, __, out, key=key: seen.__setitem__(key, out))
    return seen


def check_outputs(case: Case, model: nn.Module, arrays: Arrays, atol: float) -> None:
    """Outputs with and without the condition: `forward`, absence by sample, both forms for samplers."""
    x, t, condition = (torch.from_numpy(arrays[name]) for name in ("x", "t", "mod"))
    both = {"cond": arrays["out_cond"], "uncond": arrays["out_uncond"]}
    case.close("out_cond", model(x, t, condition), both["cond"], atol=atol)
    case.close("out_uncond", model(x, t), both["uncond"], atol=atol)
    present = torch.arange(len(x)) % 2 == 0
    mixed = np.where(present[:, None, None].numpy(), both["cond"], both["uncond"])
    case.close("every second without condition", model(x, t, condition, present), mixed, atol=atol)
    # A sampler visits one timestep at a time: of those of all rows, a row's own counts. The second of two samples of
    # every window does not see the condition.
    pair = x[:, None].expand(-1, 2, -1, -1)
    for plain in (False, True):
        call = denoiser(model, condition, t, 1, plain=plain)
        found = torch.stack([call(pair, row)[row] for row in range(len(x))])
        for index, name in enumerate(both):
            case.close(f"denoiser {name}, plain={plain}", found[:, index], both[name], atol=atol)


@cases("diffusion", "smrnet_")
@torch.no_grad()
def test_smrnet(case: Case) -> None:
    arrays, atol = case.arrays(), tolerance(case)
    model = network(case, "smrnet")
    check_outputs(case, model, arrays, atol)
    t = torch.from_numpy(arrays["t"])
    for name in arrays.names("timestep_embedding"):
        case.close(name, timestep_embedding(t, arrays[name].shape[1]), arrays[name], atol=1e-6)
    check_between(case, model, arrays, atol)
    case.finish()


def check_between(case: Case, model: nn.Module, arrays: Arrays, atol: float) -> None:
    """What stands between the layers, of both runs."""
    depth = len(model.temporal_decoder_blocks)
    places = {"time_embed": "time_embed", "obse_embed": "obse_embed", "joint_embed": "joint_embed"}
    for level in range(depth):
        block = f"temporal_decoder_blocks.{level}"
        places |= {block: f"layer{level}_mixed", f"{block}.lin1": f"layer{level}_ffn1"}
        places |= {f"{block}.cross_attention": f"layer{level}_cross", f"{block}.lin4": f"layer{level}_z"}
    seen = watch(model, places)
    x, t, condition = (torch.from_numpy(arrays[name]) for name in ("x", "t", "mod"))
    for run, given in (("cond", condition), ("uncond", None)):
        seen.clear()
        model(x, t, given)
        found = dict(seen)
        if "time_embed" in found:
            found["time_embed"] = found["time_embed"][:, None]  # theirs has an axis for the tokens here
        left = found["joint_embed"]
        for level, block in enumerate(model.temporal_decoder_blocks):
            # The last one is computed here alone: nothing depends on it.
            left = left - block.lin3(found.pop(f"layer{level}_mixed"))
            found[f"layer{level}_h"] = left
        for name in arrays.names(f"{run}_"):
            between(case, name, found[name.removeprefix(f"{run}_")], arrays[name], atol)


def between(case: Case, name: str, found: Tensor, expected: np.ndarray, atol: float) -> None:
    """The tolerance is that of outputs; what the layers pass on reaches hundreds, where float32 keeps five digits."""
    case.close(name, found, expected, atol=atol + 1e-6 * float(np.abs(expected).max()))


@cases("diffusion", "humanmac_")
@torch.no_grad()
def test_humanmac(case: Case) -> None:
    arrays, atol = case.arrays(), tolerance(case)
    model = network(case, "humanmac")
    check_outputs(case, model, arrays, atol)
    depth = len(model.temporal_decoder_blocks)
    seen = watch(model, {f"temporal_decoder_blocks.{level}": f"layer{level}_before_skip" for level in range(depth)})
    x, t, condition = (torch.from_numpy(arrays[name]) for name in ("x", "t", "mod"))
    for run, given in (("cond", condition), ("uncond", None)):
        model(x, t, given)
        for name in arrays.names(f"{run}_"):
            between(case, name, seen[name.removeprefix(f"{run}_")], arrays[name], atol)
    case.finish()
