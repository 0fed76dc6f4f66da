"""Constructor values of pyskl's graph networks in our names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kinema.models.layers.temporal import MAX, POINT, Branch

_COMMON = {
    "in_channels": "in_channels",
    "base_channels": "dim",
    "num_stages": "depth",
    "inflate_stages": "inflate_stages",
    "down_stages": "down_stages",
    "tcn_dropout": "tcn_dropout",
}
_STGCN = {
    "ch_ratio": "width_ratio",
    "gcn_conv_pos": "gcn_conv_pos",
    "gcn_with_res": "gcn_with_res",
    "tcn_type": "tcn_type",
    "tcn_kernel_size": "tcn_kernel",
    "tcn_mid_channels": "tcn_mid_fraction",
}
# Defaults of the code, for what a config leaves out.
_STAGES = {"in_channels": 3, "dim": 64, "depth": 10, "inflate_stages": [5, 8], "down_stages": [5, 8]}
_PLAIN = {"gcn_adaptive": "importance", "gcn_conv_pos": "pre", "gcn_with_res": False, "tcn_type": "unit_tcn"}


def stgcn_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of our STGCN from `model` of a config, {"backbone": {...}, "cls_head": {...}}; joints are not in it.

    A norm that persons share does not depend on their number, so `persons` is given only where the norm does.
    """
    backbone = config["backbone"]
    told = {**_STAGES, "width_ratio": 2, **_PLAIN, **_shared(config), **_renamed(backbone, _STGCN)}
    graph = backbone.get("graph_cfg", {})
    norm = backbone.get("data_bn_type", "VC")
    told["graph_mode"] = graph.get("mode", "spatial")
    told["max_hop"] = graph.get("max_hop", 1)
    told["data_norm"] = norm if norm in ("VC", "MVC") else None
    if norm == "MVC":
        told["persons"] = backbone.get("num_person", 2)
    if "gcn_adaptive" in backbone:
        adaptive = backbone["gcn_adaptive"]
        told["gcn_adaptive"] = {True: "init", False: None}.get(adaptive, adaptive)
    if "tcn_ms_cfg" in backbone:
        told["tcn_branches"], told["tcn_dilations"] = _branches(backbone["tcn_ms_cfg"])
    return told


def ctrgcn_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of our CTRGCN from `model` of a config, as in `stgcn_arguments`."""
    backbone = config["backbone"]
    dilations = list(backbone.get("dilations", [1, 2]))
    kernels = backbone.get("kernel_size", 5)
    return {
        **_STAGES,
        **_shared(config),
        "persons": backbone.get("num_person", 2),
        "dilations": dilations,
        "kernel_size": [kernels] * len(dilations) if isinstance(kernels, int) else list(kernels),
    }


def _shared(config: Mapping[str, Any]) -> dict[str, Any]:
    told = _renamed(config["backbone"], _COMMON)
    told["layout"] = config["backbone"].get("graph_cfg", {}).get("layout")
    head = config.get("cls_head", {})
    return told | {ours: head[name] for name, ours in (("num_classes",) * 2, ("dropout",) * 2) if name in head}


def _renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {
        ours: list(values[name]) if isinstance(values[name], (list, tuple)) else values[name]
        for name, ours in names.items()
        if name in values
    }


def _branches(entries: Any) -> tuple[list[Branch], list[int]]:
    """Branches and dilations from `tcn_ms_cfg`: (kernel, dilation), ("max", 3) or "1x1"."""
    branches: list[Branch] = []
    dilations = []
    for entry in entries:
        if entry == POINT or entry[0] == MAX:
            branches.append(POINT if entry == POINT else MAX)
        else:
            branches.append(entry[0])
            dilations.append(entry[1])
    return branches, dilations
