"""Training of the diffusion networks: one optimisation step, averaged weights, the learning rates of both recipes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from kinema import load
from kinema.callbacks.ema import EMA
from kinema.composition import build_task, compose
from kinema.core.motion_space import Encoded
from kinema.tasks import optim
from tests.parity.golden import Case, cases

pytestmark = pytest.mark.parity

# Adam divides by the size of a gradient: where that is rounding noise, its sign decides about a whole step.
_TINY = 1e-6


def averaged(model: nn.Module, average: EMA) -> AveragedModel:
    """What the callback keeps, as Lightning makes it."""
    return AveragedModel(model, use_buffers=True, multi_avg_fn=average._average)


def published(**changes: Any) -> EMA:
    """The callback of both papers' recipes."""
    return instantiate(compose(["experiment=humanmac/h36m"]).callbacks.ema, **changes)


@cases("diffusion", "ema")
def test_averaged_weights(case: Case) -> None:
    arrays, config = case.arrays(), case.json()
    model = nn.Module()
    model.weights = nn.Parameter(torch.zeros(arrays["current"].shape[1:]))
    average = published(decay=config["beta"], start_step=config["step_start_ema"])
    kept, found = averaged(model, average), []
    for step, weights in enumerate(arrays["current"]):
        model.weights.data.copy_(torch.from_numpy(weights))
        if average.should_update(step_idx=step):
            kept.update_parameters(model)
        found.append(kept.module.weights.detach().clone())
    case.close("ema", torch.stack(found), arrays["ema"], atol=1e-6)
    case.finish()


@cases("diffusion", "lr_schedule")
def test_learning_rates(case: Case) -> None:
    arrays = case.arrays()
    for name in arrays:
        family, _, dataset = name.partition("_")
        config = compose([f"experiment={family}/{dataset or 'h36m'}"])
        optimizer = instantiate(config.task.optimizer)([nn.Parameter(torch.zeros(1))])
        scheduler = optim.schedule(instantiate(config.task.scheduler), optimizer, lambda: 0)["scheduler"]
        rates = []
        for _ in arrays[name]:
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        case.close(name, np.asarray(rates), arrays[name], rtol=1e-9)
    case.finish()


class Seen:
    """What a network was given and gave."""

    def __init__(self, model: nn.Module) -> None:
        self.given: tuple[Any, ...] = ()
        self.gave = torch.empty(0)
        model.register_forward_hook(self._see)

    def _see(self, module: nn.Module, given: tuple[Any, ...], gave: Tensor) -> None:
        self.given, self.gave = given, gave.detach()


@cases("diffusion", "train_step")
def test_a_training_step(case: Case) -> None:
    arrays, config = case.arrays(), case.json()
    model = load(case.file("ckpt_before.pt"), num_heads=config["num_heads"], dropout=config["dropout"])
    words = [f"task.history={config['t_his']}", f"task.horizon={config['t_pred']}"]
    # What a folder does not name is as published.
    words += [f"task.noise_steps={config['noise_steps']}"] if "noise_steps" in config else []
    words += [f"task.schedule={config['scheduler'].lower()}"] if "scheduler" in config else []
    start = {"start_step": config["step_start_ema"]} if "step_start_ema" in config else {}
    node = compose(["experiment=humanmac/h36m", *words, f"task.optimizer.lr={config['lr']}"])
    task = build_task(node, model).train()
    assert model.signature.frames == config["n_pre"]

    encoded = task.space.encode(torch.from_numpy(arrays["traj"]))
    assert isinstance(encoded, Encoded)
    sees = arrays["mod"].size > 0
    seen = Seen(model)
    loss = task.denoising_loss(encoded, torch.from_numpy(arrays["t"]), torch.from_numpy(arrays["noise"]), sees)
    case.close("traj_dct", encoded.coeffs, arrays["traj_dct"], atol=1e-5)
    if sees:
        case.close("mod", seen.given[2], arrays["mod"], atol=1e-5)
    else:
        assert seen.given[2] is None
    case.close("x_t", seen.given[0], arrays["x_t"], atol=1e-5)
    case.close("pred", seen.gave, arrays["pred"], atol=1e-5)
    case.close("loss", loss, arrays["loss"], atol=1e-5)

    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    with case.check("parameters without a gradient"):
        assert sorted(k for k, v in gradients.items() if v is None) == sorted(arrays["no_grad_keys"].tolist())
    largest = max(float(np.abs(arrays[name]).max(initial=0)) for name in arrays.names("grad/"))
    for name, gradient in gradients.items():
        expected = arrays[f"grad/{name}"]
        found = np.empty(0, np.float32) if gradient is None else gradient
        # Of a sum of products of either sign the rounding is that of its largest parts. Queries that have one token to
        # look at have no gradient, up to what fused attention rounds.
        atol = max(1e-4 * float(np.abs(expected).max(initial=0)), 1e-6 * largest)
        case.close(f"grad/{name}", found, expected, rtol=1e-4, atol=atol)

    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    average = published(decay=config["ema_beta"], **start)
    kept = averaged(model, average)
    kept.update_parameters(model)  # so far a copy
    optimizer = optim.build(task.optimizer_recipe, optim.parameter_groups(model, None))
    optimizer.step()
    after = torch.load(case.file("ckpt_after_adam.pt"), weights_only=True)
    for name, tensor in model.state_dict().items():
        gradient = gradients[name]
        sure = torch.ones_like(tensor, dtype=torch.bool) if gradient is None else gradient.abs() >= _TINY
        case.close(f"after Adam {name}", tensor[sure], after[name][sure], atol=2e-5)
        case.close(f"after Adam {name}, tiny", tensor[~sure], after[name][~sure], atol=2 * config["lr"])
    assert any(not torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())

    assert average.should_update(step_idx=config["ema_step_before"])
    expected = torch.load(case.file("ckpt_ema_after.pt"), weights_only=True)
    model.load_state_dict(after)
    kept.update_parameters(model)
    for name, tensor in kept.module.state_dict().items():
        case.close(f"EMA {name}", tensor, expected[name], atol=1e-6)
    case.finish()
