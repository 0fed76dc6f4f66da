"""mode=describe: parameters, multiply-accumulates, latency and peak memory of any model; needs no data."""

from __future__ import annotations

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from torch import nn

from kinema import composition, runs
from kinema.core.spec import Signature
from kinema.errors import ConfigError
from kinema.inference.complexity import (
    NOISE_RULE,
    RULE,
    SAMPLES,
    SCAN_RULE,
    Cost,
    Macs,
    count_macs,
    count_parameters,
    measure,
)


def run(config: DictConfig) -> None:
    """Print what the model of the configuration (or of `ckpt`) is and costs, as a table and as metrics.json."""
    options = config.describe
    frames = OmegaConf.select(config, "describe.frames")
    with runs.recorded(config) as run_:
        model = composition.build_model(config).eval()
        signature: Signature = model.signature  # type: ignore[assignment]
        _check(signature, frames, options.batch_size, options.runs)
        parameters = count_parameters(model)
        macs = count_macs(model, options.batch_size, frames)
        device = device_of(config.trainer.accelerator)
        model.to(device)
        inputs = tuple(tensor.to(device) for tensor in signature.example(options.batch_size, frames))
        costs = {"forward": measure(model, inputs, runs=options.runs)}
        if options.training:
            costs["training step"] = measure(model, inputs, runs=options.runs, training=True)
        length = signature.frames if frames is None else frames
        Console().print(_table(model, signature, macs, costs, device, options.batch_size, length))
        print(f"parameters: {parameters:,}")
        print(f"multiply-accumulates: {macs.total:,}")
        values: dict[str, float] = {"describe/parameters": parameters, "describe/macs": macs.total}
        if macs.visible is not None:
            print(f"visible multiply-accumulates: {macs.visible:,}")
            values["describe/visible_macs"] = macs.visible
        if macs.unconditional is not None and macs.sampling is not None:
            values["describe/unconditional_macs"] = macs.unconditional
            values["describe/sampling_macs"] = macs.sampling
        for name, cost in costs.items():
            values[f"describe/{name.split()[0]}_seconds"] = cost.seconds
            values[f"describe/{name.split()[0]}_peak_bytes"] = cost.peak_bytes
        run_.metrics(values, {"device": str(device), "batch_size": options.batch_size, "frames": length})


def device_of(accelerator: str) -> torch.device:
    """The device that `trainer.accelerator` means on this machine."""
    wants_cuda = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return torch.device("cuda" if wants_cuda else "cpu")


def _check(signature: Signature, frames: int | None, batch: int, times: int) -> None:
    if batch < 1 or times < 1:
        raise ConfigError(f"describe.batch_size={batch} and describe.runs={times} must be at least 1. Use 1 and 3.")
    fits = {"exact": frames == signature.frames, "max": frames is None or 1 <= frames <= signature.frames}
    fits["any"] = frames is None or frames > sum(signature.context)
    if frames is not None and not fits[signature.frames_rule]:
        raise ConfigError(
            f"describe.frames={frames} does not suit a model for {signature.frames} frames "
            f"({_rule(signature)}). Use describe.frames={signature.frames}."
        )


_RULES = {"exact": "exactly so many", "max": "up to so many", "any": "so many or more"}


def _rule(signature: Signature) -> str:
    free = signature.frames_rule == "any" and not sum(signature.context)
    return "or any other number" if free else _RULES[signature.frames_rule]


def _table(
    model: nn.Module,
    signature: Signature,
    macs: Macs,
    costs: dict[str, Cost],
    device: torch.device,
    batch: int,
    frames: int,
) -> Table:
    name = getattr(type(model), "registered_name", type(model).__name__)
    table = Table(title=f"{type(model).__name__} ({name})", show_header=False, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    table.add_row("input", _input(signature))
    table.add_row("output", _output(signature))
    before, after = signature.context
    if signature.output != "noise":
        table.add_row(
            "receptive field",
            f"{before + 1 + after} frames: {before} before, {after} after" if before + after else "the whole clip",
        )
    provenance = getattr(model, "provenance", None)
    if provenance is not None:
        table.add_row("weights", str(provenance.path))
    total, trainable = count_parameters(model), count_parameters(model, trainable=True)
    size = sum(tensor.nbytes for tensor in model.state_dict().values())
    note = "" if trainable == total else f", {trainable:,} of them trained"
    table.add_row("parameters", f"{total:,}{note} ({_bytes(size)} of weights)")
    table.add_section()
    kinds = ", ".join(f"{kind} {_count(value)}" for kind, value in macs.kinds.items())
    tokens = "coefficients" if signature.output == "noise" else "frames"
    table.add_row("multiply-accumulates", f"{_count(macs.total)} for {batch} x {frames} {tokens} ({kinds})")
    if macs.visible is not None:
        table.add_row("  visible to profilers", f"{_count(macs.visible)}, of a mixer in_proj alone")
    unit = {"pose3d": "frame", "noise": "sample"}.get(signature.output, "clip")
    table.add_row(f"  per {'output frame' if unit == 'frame' else unit}", _count(macs.per_frame))
    if macs.unconditional is not None and macs.sampling is not None:
        table.add_row("  without the condition", _count(macs.unconditional))
        table.add_row(f"  one of {SAMPLES} samples", f"{_count(macs.sampling)} per step of a sampler, windows shared")
    if macs.streaming is not None:
        table.add_row("  per frame of a long video", _count(macs.streaming))
    rule = NOISE_RULE if signature.output == "noise" else RULE
    table.add_row("  counted", rule if macs.visible is None else SCAN_RULE)
    table.add_section()
    threads = torch.get_num_threads()
    cpu = f"cpu, {threads} thread{'s' if threads > 1 else ''}"
    where = cpu if device.type == "cpu" else torch.cuda.get_device_name(device)
    for kind, cost in costs.items():
        rate = batch * macs.frames_out / cost.seconds
        table.add_row(
            f"{kind}, time",
            f"{_seconds(cost.seconds)}, {rate:,.{0 if rate >= 10 else 2}f} {unit}s/s (median of {cost.runs}; {where})",
        )
        table.add_row(f"{kind}, peak memory", f"{_bytes(cost.peak_bytes)} of tensors beside the weights")
    return table


def _input(signature: Signature) -> str:
    if signature.output == "noise":
        points = f" ({signature.joints} joints without the root)" if signature.in_channels == 3 else ""
        rows = signature.condition_frames or signature.frames
        return (
            f"x (B, {signature.frames}, {signature.num_features}), t (B,), "
            f"condition (B, {rows}, {signature.num_features}) or none: "
            f"{signature.frames} coefficients ({_rule(signature)}) of {signature.num_features} features{points}"
        )
    persons = f"{signature.persons}, " if signature.persons else ""
    return (
        f"pose (B, {persons}T, {signature.joints}, {signature.in_channels}), "
        f"T = {signature.frames} ({_rule(signature)})"
    )


def _output(signature: Signature) -> str:
    frames = "1" if sum(signature.context) and signature.frames_rule == "exact" else "T"
    if sum(signature.context) and signature.frames_rule == "any":
        frames = f"T - {sum(signature.context)}"
    shapes = {
        "pose3d": f"(B, {frames}, {signature.joints_out}, 3)",
        "logits": f"(B, {signature.classes})",
        "embedding": f"(B, {signature.feature_dim})",
        "noise": f"(B, {signature.frames}, {signature.num_features})",
    }
    trajectory = ", the root's slot carries its path" if signature.trajectory else ""
    return f"{signature.output} {shapes.get(signature.output, '')}{trajectory}".strip()


def _count(value: float) -> str:
    for scale, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= scale:
            return f"{value / scale:.2f} {unit}"
    return f"{value:.0f}"


def _bytes(value: float) -> str:
    return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.1f} MiB"


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.2f} ms"
