"""The model files of `conf/`, read without Hydra and for a skeleton of a given size."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf

from tests.parity.golden import REPOSITORY


def arguments(name: str, num_joints: int = 17) -> dict[str, Any]:
    """Constructor arguments of `conf/model/<name>.yaml`, its base file merged in."""
    config = OmegaConf.load(REPOSITORY / "conf" / "model" / f"{name}.yaml")
    for base in config.pop("defaults", []):
        if base != "_self_":
            config = OmegaConf.merge(OmegaConf.load(REPOSITORY / "conf" / "model" / f"{base}.yaml"), config)
    skeleton = {15: "humaneva15", 17: "h36m17"}.get(num_joints)
    dataset = {"num_joints": num_joints, "num_joints_out": num_joints, "skeleton2d": skeleton, "skeleton": skeleton}
    whole = OmegaConf.to_container(OmegaConf.create({"model": config, "dataset": dataset}), resolve=True)
    model: dict[str, Any] = whole["model"]
    return {key: value for key, value in model.items() if key != "_target_"}
