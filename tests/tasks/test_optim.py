"""Parameter groups, frozen parts, fused steps and schedules."""

from __future__ import annotations

import itertools
import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import OneCycleLR

from kinema.errors import ConfigError
from kinema.tasks import optim


def network() -> nn.Module:
    return nn.ModuleDict({"backbone": nn.Linear(3, 4), "head": nn.Linear(4, 2)})


def named_groups(model: nn.Module, groups: list[dict]) -> list[tuple[list[str], dict]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [
        ([names[id(p)] for p in group["params"]], {k: v for k, v in group.items() if k != "params"}) for group in groups
    ]


def test_without_options_there_is_one_group_in_the_models_order() -> None:
    model = network()
    found = named_groups(model, optim.parameter_groups(model, None))
    assert found == [([name for name, _ in model.named_parameters()], {})]


def test_a_parameter_takes_the_options_of_every_pattern_it_matches() -> None:
    model = network()
    model["head"].weight._no_weight_decay = True
    groups = optim.parameter_groups(model, {"*.bias": {"weight_decay": 0.0}, "backbone.*": {"lr": 1e-4}})
    assert sorted(named_groups(model, groups), key=lambda group: group[0][0]) == [
        (["backbone.bias"], {"lr": 1e-4, "weight_decay": 0.0}),
        (["backbone.weight"], {"lr": 1e-4}),
        (["head.weight", "head.bias"], {"weight_decay": 0.0}),
    ]


def test_only_parameters_that_match_are_trained() -> None:
    model = network()
    optim.freeze_but(model, ["head.*"])
    assert named_groups(model, optim.parameter_groups(model, None)) == [(["head.weight", "head.bias"], {})]
    assert not model["backbone"].weight.requires_grad


@pytest.mark.parametrize("key", ["trainable", "parameter_groups"])
def test_a_pattern_without_a_parameter_is_named(key: str) -> None:
    model = network()
    with pytest.raises(ConfigError, match=rf"task.{key}: no parameter .* matches 'haed.weight'.*'head.weight'"):
        if key == "trainable":
            optim.freeze_but(model, ["haed.weight"])
        else:
            optim.parameter_groups(model, {"haed.weight": {"lr": 1.0}})


def test_a_model_without_trainable_parameters_is_refused() -> None:
    with pytest.raises(ConfigError, match="No parameter is left to train"):
        optim.parameter_groups(network().requires_grad_(False), None)


def test_the_fused_step_equals_the_plain_one_and_gives_way_where_it_cannot_work() -> None:
    results = []
    for fused in (True, False):
        torch.manual_seed(0)
        model = network()
        recipe = partial(AdamW, lr=1e-2, weight_decay=0.1, fused=fused)
        optimizer = optim.build(recipe, optim.parameter_groups(model, None))
        assert optimizer.defaults["fused"] is fused
        for _ in range(3):
            optimizer.zero_grad()
            model["head"](model["backbone"](torch.ones(5, 3))).square().mean().backward()
            optimizer.step()
        results.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=1e-7)
    groups = optim.parameter_groups(network(), None)
    assert optim.build(partial(AdamW, fused=True), groups, unscaled_clipping=True).defaults["fused"] is False
    meta = optim.parameter_groups(network().to("meta"), None)
    assert optim.build(partial(AdamW, fused=True), meta).defaults["fused"] is False


def rates(scheduler: object, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()  # type: ignore[attr-defined]
    return found


def test_exponential_multiplies_per_epoch() -> None:
    optimizer = SGD(network().parameters(), lr=0.5)
    made = optim.schedule(partial(optim.exponential, gamma=0.9), optimizer, lambda: pytest.fail("not asked"))
    assert made["interval"] == "epoch"
    assert rates(made["scheduler"], optimizer, 3) == [0.5, 0.5 * 0.9, 0.5 * 0.9 * 0.9]


def test_milestones_lower_the_rate_before_the_named_epochs() -> None:
    optimizer = SGD(network().parameters(), lr=0.5)
    recipe = partial(optim.milestones, epochs=[1, 3], gamma=0.5)
    made = optim.schedule(recipe, optimizer, lambda: pytest.fail("not asked"))
    assert made["interval"] == "epoch"
    assert rates(made["scheduler"], optimizer, 5) == [0.5, 0.25, 0.25, 0.125, 0.125]


def test_warmup_rises_and_the_cosine_falls_to_the_floor_by_steps() -> None:
    optimizer = SGD(network().parameters(), lr=2.0)
    recipe = partial(optim.warmup_cosine, warmup_steps=4, floor=0.1, total_steps=None)
    made = optim.schedule(recipe, optimizer, lambda: 24)
    assert made["interval"] == "step"
    found = rates(made["scheduler"], optimizer, 26)
    assert found[:5] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])
    middle = 2 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 2)))
    assert found[14] == pytest.approx(middle)
    assert found[24:] == pytest.approx([0.2, 0.2])
    assert all(a > b for a, b in itertools.pairwise(found[4:25]))


def test_a_warmup_that_eats_the_training_is_shortened_and_told(caplog: pytest.LogCaptureFixture) -> None:
    optimizer = SGD(network().parameters(), lr=1.0)
    made = optim.schedule(partial(optim.warmup_cosine, warmup_steps=100), optimizer, lambda: 60)
    found = rates(made["scheduler"], optimizer, 60)
    assert found[:6] == pytest.approx([n / 6 for n in range(1, 7)]) and max(found) == 1.0
    assert found[-1] < 0.01
    assert "has 60 steps, too few for a warm-up of 100: it is shortened to 6" in caplog.text
    caplog.clear()
    optim.schedule(partial(optim.warmup_cosine, warmup_steps=30), SGD(network().parameters(), lr=1.0), lambda: 60)
    optim.schedule(partial(optim.warmup_cosine, warmup_steps=9), SGD(network().parameters(), lr=1.0), lambda: 3)
    assert caplog.text.count("shortened") == 1, "half of the training is still a warm-up"


def test_any_scheduler_with_total_steps_goes_by_steps() -> None:
    optimizer = SGD(network().parameters(), lr=1.0)
    made = optim.schedule(partial(OneCycleLR, max_lr=1.0), optimizer, lambda: 10)
    assert (made["interval"], made["scheduler"].total_steps) == ("step", 10)


def test_a_cosine_without_an_end_is_refused() -> None:
    optimizer = SGD(network().parameters(), lr=1.0)
    with pytest.raises(ConfigError, match=r"trainer\.max_steps=10000"):
        optim.schedule(partial(optim.warmup_cosine, warmup_steps=4), optimizer, lambda: -1)
