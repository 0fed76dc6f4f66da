"""Mamba blocks and PoseMamba against the published programs, with every scan backend that runs here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import kinema
from kinema.checkpoints.envelopes import read_weights
from kinema.errors import ConfigError
from kinema.models.layers.mamba import BiMamba, Mamba
from kinema.models.layers.selective_scan import selective_scan
from kinema.models.posemamba import PoseMamba
from tests.parity.golden import Case, cases

pytestmark = pytest.mark.parity

# What decides about fresh weights only.
INITIAL = {"dt_min", "dt_max", "dt_init", "dt_scale", "dt_init_floor"} | {"use_fast_path", "layer_idx"}
# Official constructor words -> ours.
BLOCK = {"d_model": "dim", "if_divide_out": "divide", "bimamba_type": "variant"}
LIFTER = {"num_frame": "num_frames", "embed_dim_ratio": "dim", "in_chans": "in_channels", "drop_path_rate": "drop_path"}


@pytest.fixture(params=["reference", "torch", "cpp"])
def backend(request: pytest.FixtureRequest) -> str:
    """Every backend that a CPU may have."""
    try:
        ones = torch.ones(1, 2, 3)
        selective_scan(ones, ones, -torch.ones(2, 2), torch.ones(1, 2, 3), torch.ones(1, 2, 3), backend=request.param)
    except ConfigError as error:
        pytest.skip(str(error))
    return request.param


def block(config: dict[str, Any], state: dict[str, Tensor], backend: str) -> nn.Module:
    """Our block from the official options, with the published weights."""
    options = {BLOCK.get(name, name): value for name, value in config.items() if name not in INITIAL}
    dim = options.pop("dim")
    if options.get("dt_rank") == "auto":
        options["dt_rank"] = None
    if options.get("variant") in (None, "none"):
        options = {name: value for name, value in options.items() if name not in ("variant", "divide")}
        made: nn.Module = Mamba(dim, **options, scan_backend=backend)
    else:
        made = BiMamba(dim, **options, scan_backend=backend)
    made.load_state_dict(state, strict=True)
    return made


def relative(case: Case, what: str, found: Tensor, expected: np.ndarray, share: float) -> None:
    """A share of the largest value: the golden outputs go up to 485, so no fixed bound would do."""
    case.close(what, found, expected, atol=share * float(np.abs(expected).max()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@cases("mamba/mamba_block", "")
def test_mamba_block(case: Case, backend: str, dtype: torch.dtype) -> None:
    arrays = case.arrays()
    state = read_weights(case.file("model.pth")).state
    made = block(case.json(), state, backend).to(dtype)
    x = torch.from_numpy(arrays["x"]).to(dtype).requires_grad_()
    y = made(x)
    relative(case, "y", y, arrays["y"], 5e-6)
    y.backward(torch.from_numpy(arrays["grad_y"]).to(dtype))
    assert x.grad is not None
    relative(case, "grad_x", x.grad, arrays["grad_x"], 5e-6)
    gradients = {f"grad/{name}": parameter.grad for name, parameter in made.named_parameters()}
    with case.check("every parameter has its gradient in the file and the other way round"):
        assert set(gradients) == set(arrays.names("grad/"))
    for name in arrays.names("grad/"):
        relative(case, name, gradients[name], arrays[name], 1e-5)
    case.finish()


@cases("mamba/posemamba", "")
@torch.no_grad()
def test_posemamba(case: Case, backend: str) -> None:
    arrays = case.arrays()
    model = kinema.load(case.file("best_epoch.bin"), scan_backend=backend)
    with case.check("arguments"):
        assert isinstance(model, PoseMamba)
        told = {LIFTER.get(name, name): value for name, value in case.json().items()}
        told.pop("drop_path", None)  # a file does not tell it
        assert {name: model.arguments[name] for name in told} == told
        assert model.arguments["scan_backend"] == backend
        assert model.provenance.preprocess == "motionbert"
    pose = torch.from_numpy(arrays["x"])
    case.close("y", model(pose), arrays["y"], atol=2e-5)
    case.close("y float64", model.double()(pose.double()), arrays["y"], atol=2e-5)
    case.finish()
