"""Published action networks: outputs, three training steps, files in and out, a lifter's weights into a backbone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import kinema
from kinema.checkpoints.envelopes import read_weights
from kinema.checkpoints.export import export
from kinema.checkpoints.files import read_content
from kinema.checkpoints.load import arguments_of, identify
from kinema.checkpoints.transfer import transfer
from kinema.core.class_metrics import top_k
from kinema.core.clip_preprocess import clip_preprocess
from kinema.core.crop import crop_scale
from kinema.core.motion import resample_indices
from kinema.data.safe_pickle import load_pickle
from kinema.tasks.optim import parameter_groups
from tests.parity.golden import FIXTURES, ROOT, Arrays, Case, cases
from tests.parity.official import ours

pytestmark = pytest.mark.parity

PYSKL = [
    pytest.param(path, id=f"{mark}{path.relative_to(root)}")
    for mark, root in (("", ROOT), ("kept-", FIXTURES))
    for path in sorted((root / "action").rglob("*.pth"))
]

# What config*.json says beside the backbone's constructor values.
_HIDDEN = ("actual_head_hidden", "head_hidden", "hidden_dim")
_HEAD = {*_HIDDEN, "config_hidden_dim", "num_classes", "dropout_ratio", "version", "n_frames"}
_RECIPE = {"lr_backbone", "lr_head", "weight_decay", "lr_decay", "steps"}
_PUBLISHED_WIDTH = 2048  # of every class head, whatever its yaml states
_ROUNDED = ("head.fc1.bias", "head.bn.running_mean")  # see compare_trained
_EVERY = 27  # longer clips' representations are stored every so many frames


def network(case: Case, file: str, config: dict[str, Any], tmp_path: Path) -> nn.Module:
    """The network of a file, compared with its config, and written back in its own layout."""
    path = case.file(file)
    inside = ours({key: value for key, value in config.items() if key not in _HEAD | _RECIPE})
    embeds = config.get("version", "embed") == "embed"
    model = kinema.load(path, num_heads=inside.pop("num_heads"), dropout=config.get("dropout_ratio", 0.0))
    with case.check(f"{file}: arguments"):
        found = arguments_of(model)
        told = found["backbone"]["args"]
        assert {key: told[key] for key in inside} == inside
        assert found["head"] == ("embed" if embeds else "class")
        assert found["num_classes"] == (None if embeds else config["num_classes"])
        wide = next(config[key] for key in _HIDDEN if key in config)
        published = not embeds and "head_hidden" not in config
        assert found["hidden"] == (_PUBLISHED_WIDTH if published else wide)
    content = read_content(path)
    with case.check(f"{file}: layout and preprocessing"):
        wanted = ("ma52_fork", "ma52_fork") if "scheduler" in content else ("motionbert_action", "ntu_compat")
        assert (model.provenance.envelope, model.provenance.preprocess) == wanted
    check_written(case, file, model, content, tmp_path)
    return model


def check_written(case: Case, file: str, model: nn.Module, content: dict[str, Any], tmp_path: Path) -> None:
    """Export in the official layout: the same keys, names and values, optimiser and scheduler included."""
    out = tmp_path / f"out-{file}"
    export(model, out, "official")
    written = read_content(out)
    with case.check(f"{file}: written back"):
        assert set(written["model"]) == set(content["model"])
        for name, tensor in content["model"].items():
            assert torch.equal(written["model"][name], tensor), name
        for key, value in content.items():
            if key == "best_acc":
                assert float(written[key]) == float(value)
            elif key != "model":
                assert _equal(written[key], value), key


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)


def features(model: nn.Module, x: np.ndarray) -> Tensor:
    """The backbone's representation of every person, (N*M, T, J, R)."""
    with torch.no_grad():
        return model.backbone.features(torch.from_numpy(x).flatten(0, 1))


def output(model: nn.Module, x: np.ndarray) -> Tensor:
    with torch.no_grad():
        return model(torch.from_numpy(x))


@cases("action", "b_actionnet")
def test_networks(case: Case, tmp_path: Path) -> None:
    for path in sorted(case.path.glob("config_*.json")):
        name, config = path.stem.removeprefix("config_"), case.json(path.name)
        trained = [one for one in sorted(case.path.glob(f"case_{name}_train*.npz"))]
        for one in trained:
            steps = int(re.fullmatch(rf"case_{name}_train(\d+)", one.stem)[1])
            check_training(case, name, config, case.arrays(one.name), steps, tmp_path)
        if not trained:
            model = network(case, f"{name}_best_epoch.bin", config, tmp_path)
            check_outputs(case, name, model, case.arrays(f"case_{name}.npz"))
    check_finetuning(case, tmp_path)
    case.finish()


def check_outputs(case: Case, name: str, model: nn.Module, arrays: Arrays) -> None:
    for key in arrays.names("x"):
        x, of = arrays[key], key.removeprefix("x")
        answer = "embedding" if model.signature.output == "embedding" else f"logits{of}"
        case.close(f"{name}: {answer} at {x.shape[2]} frames", output(model, x), arrays[answer], atol=1e-5)
        if f"rep{of}" in arrays:
            rep = arrays[f"rep{of}"]
            found = features(model, x)
            found = found if found.shape[1] == rep.shape[1] else found[:, ::_EVERY]
            case.close(f"{name}: representation at {x.shape[2]} frames", found, rep, atol=1e-5)


def check_training(case: Case, name: str, config: dict[str, Any], arrays: Arrays, steps: int, tmp_path: Path) -> None:
    model = network(case, f"{name}_init.bin", config, tmp_path)
    x, target = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["target"])
    case.close(f"{name}: initial logits", output(model, arrays["x"]), arrays["init_logits_eval"], atol=1e-5)
    groups = parameter_groups(model, {"backbone.*": {"lr": config["lr_backbone"]}, "head.*": {"lr": config["lr_head"]}})
    optimizer = torch.optim.AdamW(groups, weight_decay=config["weight_decay"])
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, config["lr_decay"])
    model.train()
    losses = []
    for step in range(steps):
        logits = model(x)
        loss = F.cross_entropy(logits, target)
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        if step == 0:
            case.close(f"{name}: first training logits", logits, arrays["train_logits_step0"], atol=1e-5)
            parameters = dict(model.named_parameters())
            for key in arrays.names("grad__"):
                gradient = parameters[key.removeprefix("grad__")].grad
                case.close(f"{name}: {key}", gradient, arrays[key], atol=1e-5)
            with case.check(f"{name}: has_no_grad"):
                without = {key for key, parameter in parameters.items() if parameter.grad is None}
                assert without == set(arrays["has_no_grad"].tolist())
                assert without == {key for key, parameter in parameters.items() if not parameter.requires_grad}
        optimizer.step()
        scheduler.step()
    case.close(f"{name}: losses", losses, arrays["losses"], atol=1e-4)
    model.eval()
    state = model.state_dict()
    latest = network(case, f"{name}_latest_epoch.bin", config, tmp_path)
    walked = steps**0.5 * sum(config["lr_decay"] ** step for step in range(steps))
    for key in arrays.names(f"after{steps}_"):
        wanted = key.removeprefix(f"after{steps}_")
        (found,) = (full for full in state if full.replace(".", "_").endswith(wanted))
        compare_trained(case, f"{name}: {key}", found, state[found], torch.from_numpy(arrays[key]), config, walked)
    for key, tensor in latest.state_dict().items():
        what = f"{name}: {key} of the file after {steps} steps"
        compare_trained(case, what, key, state[key], tensor, config, walked)
    # What rounding decided is taken from the file; all the rest is ours.
    for key in _ROUNDED:
        state[key].copy_(latest.state_dict()[key])
    case.close(f"{name}: final logits", output(model, arrays["x"]), arrays["final_logits_eval"], atol=1e-4)
    case.close(f"{name}: the file's logits", output(latest, arrays["x"]), arrays["final_logits_eval"], atol=1e-5)
    content = read_content(case.file(f"{name}_latest_epoch.bin"))
    with case.check(f"{name}: learning rates"):
        assert content["lr"] == pytest.approx(scheduler.get_last_lr())
        assert content["scheduler"]["last_epoch"] == scheduler.last_epoch
    check_moments(case, name, model, optimizer, content)


def compare_trained(
    case: Case, what: str, key: str, found: Tensor, expected: Tensor, config: dict[str, Any], walked: float
) -> None:
    """Compare a trained tensor at 1e-4, or as far as AdamW can carry rounding where the gradient is exactly zero.

    BatchNorm removes the bias before it, softmax the same number in front of every key. Their gradients are rounding
    errors, which AdamW blows up to whole steps in directions that differ between processors; the running mean follows
    the bias. Each side walks at most the learning rate times the root of the number of steps, in every step.
    """
    lr = config["lr_head"] if key.startswith("head.") else config["lr_backbone"]
    far = 2 * lr * walked
    if key in _ROUNDED:
        case.close(what, found, expected, atol=far)
    elif key.endswith("qkv.bias"):
        parts = zip(("query", "key", "value"), found.chunk(3), expected.chunk(3), strict=True)
        for part, one, other in parts:
            case.close(f"{what}, {part}", one, other, atol=far if part == "key" else 1e-4)
    else:
        case.close(what, found, expected, atol=1e-4)


def check_moments(
    case: Case, name: str, model: nn.Module, optimizer: torch.optim.Optimizer, content: dict[str, Any]
) -> None:
    """The optimiser of the published script numbers all parameters, those without a gradient too."""
    states, parameters = content["optimizer"]["state"], dict(model.named_parameters())
    ordered = [full for full in (one.removeprefix("module.") for one in content["model"]) if full in parameters]
    with case.check(f"{name}: optimiser"):
        numbered = [number for group in content["optimizer"]["param_groups"] for number in group["params"]]
        assert numbered == list(range(len(parameters)))
        kept = {full for full, parameter in parameters.items() if parameter in optimizer.state}
        assert {ordered[number] for number in states} == kept
        for number, state in states.items():
            mine = optimizer.state[parameters[ordered[number]]]
            assert float(mine["step"]) == float(state["step"])
            for key in ("exp_avg", "exp_avg_sq"):
                near = 1e-3 * state[key].abs().max().item() + 1e-6
                torch.testing.assert_close(mine[key], state[key], rtol=0, atol=near)


def check_finetuning(case: Case, tmp_path: Path) -> None:
    """A pretrained lifter of other sizes into an action network: what is taken, and the logits afterwards."""
    if not (case.path / "finetune_keys.json").exists():
        return
    arrays, keys = case.arrays("case_finetune.npz"), case.json("finetune_keys.json")
    target, source = case.file("finetune_target_before.bin"), case.file("pretrained_mismatch.bin")
    # No file of these says its heads: those of the configs that have its sizes.
    told = identify(read_weights(target))[1]["backbone"]["args"]
    configs = [case.json(path.name) for path in sorted(case.path.glob("config_*.json"))]
    sizes = [ours({k: v for k, v in one.items() if k not in _HEAD | _RECIPE}) for one in configs]
    fits = [one for one in sizes if all(told.get(key, value) == value for key, value in one.items())]
    (num_heads,) = {one["num_heads"] for one in fits}
    model = kinema.load(target, num_heads=num_heads)
    check_written(case, target.name, model, {"model": read_content(target)["model"]}, tmp_path)
    report = transfer(model, source)

    def inside(names: tuple[str, ...]) -> set[str]:
        """Names in the backbone; a mismatch states both shapes behind the name."""
        return {name.split(" ")[0].removeprefix("backbone.") for name in names}

    with case.check("names taken, discarded and left"):
        assert (report.source, report.target) == ("", "backbone.")
        assert inside(report.matched) == set(keys["matched"])
        assert keys["printed"] == f"load_weight {len(report.matched)}"
        assert inside(report.mismatched) | set(report.unused) == set(keys["discarded"])
        assert inside(report.mismatched) | inside(report.missing) == set(keys["left_at_init"])
    case.close("logits afterwards", output(model, arrays["x"]), arrays["logits"], atol=1e-5)
    assert set(read_weights(source).state) == set(keys["matched"]) | set(keys["discarded"])


@cases("motionbert", "action_")
def test_heads(case: Case, tmp_path: Path) -> None:
    arrays, config = case.arrays(), case.json()
    model = network(case, "best_epoch.bin", config, tmp_path)
    x = arrays["x"]
    case.close("representation", features(model, x).unflatten(0, x.shape[:2]), arrays["rep"], atol=2e-5)
    out = output(model, x)
    case.close("output", out, arrays["out"], atol=2e-5)
    if "labels" in arrays:
        labels = torch.from_numpy(arrays["labels"])
        case.close("cross-entropy", F.cross_entropy(out.double(), labels), arrays["ce"], atol=1e-5)
        for key in arrays.names("acc"):
            ranks = tuple(int(rank) for rank in re.findall(r"acc(\d+)", key))
            case.close(f"top {ranks}", 100 * top_k(out, labels, ranks).double().mean(1), arrays[key])
    if "out_train_nodrop" in arrays:
        plain = kinema.load(case.path / "best_epoch.bin", num_heads=config["num_heads"]).train()
        case.close("training output without dropout", output(plain, x), arrays["out_train_nodrop"], atol=2e-5)
        for key in ("running_mean", "running_var"):
            found = getattr(plain.head.bn, key)
            case.close(f"{key} afterwards", found, arrays[f"bn_{key}_after"], atol=2e-5)
    case.finish()


@pytest.mark.parametrize("path", PYSKL)
def test_pyskl_files_are_written_back(path: Path, tmp_path: Path) -> None:
    model = kinema.load(path)
    export(model, tmp_path / "out.pth", "official")
    content, written = read_content(path), read_content(tmp_path / "out.pth")
    assert _equal(written, {key: value for key, value in content.items() if value is not None})
    best = (content["meta"] or {}).get("hook_msgs", {}).get("best_score")
    assert type(model.provenance.facts.get("best_score")) is (type(None) if best is None else float)


@cases("motionbert", "ntu")
def test_one_shot_features(case: Case, tmp_path: Path) -> None:
    """From the published container to the embeddings: preparation, resampling, box of scale 2, network."""
    arrays, config = case.arrays(), case.json()
    (weights,) = (path.name for path in case.path.glob("*.bin"))
    model = network(case, weights, config, tmp_path)
    (file,) = (path.name for path in case.path.glob("*oneshot*.pkl"))
    container = load_pickle(case.file(file))
    records = {record["frame_dir"]: record for record in container["annotations"]}
    way = clip_preprocess("ntu_compat")
    for split, prefix in (("oneshot_train", "anchor"), ("oneshot_val", "test")):
        chosen = [records[name] for name in records if name in set(container["split"][split])]
        clips = []
        for record in chosen:
            height, width = record["img_shape"]
            clip = way.apply(record["keypoint"], record["keypoint_score"], (width, height))
            clip = clip[:, resample_indices(clip.shape[1], config["n_frames"])]
            absent = np.zeros((model.signature.persons - len(clip), *clip.shape[1:]), dtype=np.float32)
            clips.append(crop_scale(torch.from_numpy(np.concatenate([clip, absent])), 2.0))
        with torch.no_grad():
            found = model(torch.stack(clips))
        case.close(f"{split}: labels", [record["label"] for record in chosen], arrays[f"{prefix}_labels"])
        case.close(f"{split}: features", found, arrays[f"{prefix}_feats"], atol=2e-5)
    # The data are test_action_ntu.py's, retrieval test_action_metrics.py's.
    for name in (*arrays.names("val_"), *arrays.names("train_"), *arrays.names("oneshot_"), *arrays.names("aux_")):
        assert arrays[name].size
    for path in case.path.glob("*.pkl"):
        case.file(path.name)
    case.finish()
