"""Weights into a model that exists: what fits is taken, what does not is said."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from kinema.checkpoints.transfer import check_fits, transfer
from kinema.errors import CheckpointError
from tests.checkpoints import tiny


class Classifier(nn.Module):
    """A head on a backbone, named as in the action models."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(3, 2)


def zeroed(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_an_equal_model_takes_everything(family: str, tmp_path: Path) -> None:
    model, target = tiny.build(family), zeroed(tiny.build(family))
    report = transfer(target, tiny.save(tiny.official(model), tmp_path / "x.bin"))
    assert tiny.same_output(target, model)
    assert set(report.matched) == set(model.state_dict())
    assert (report.mismatched, report.missing, report.unused) == ((), (), ())


def test_what_does_not_fit_is_reported_and_kept(tmp_path: Path) -> None:
    model, target = tiny.build("dstformer", depth=3, num_frames=9), zeroed(tiny.build("dstformer", att_fuse=True))
    state = model.state_dict()
    del state["norm.bias"]
    report = transfer(target, tiny.save(state, tmp_path / "x.pt"))
    own = target.state_dict()
    assert report.mismatched == ("temp_embed (1, 9, 1, 8) in the file, (1, 5, 1, 8) in the model",)
    assert report.missing == ("norm.bias",)
    assert all(".2." in name for name in report.unused)
    assert len(report.unused) == 2 * 24 + 2
    assert set(report.matched) == set(own) - {"temp_embed", "norm.bias"}
    for name in own:
        assert torch.equal(own[name], state[name]) if name in report.matched else not own[name].any()
    assert f"{len(report.matched)} tensors of" in str(report)
    assert "1 of another shape, kept as they were:" in str(report)
    assert "  ... and 41 more" in str(report)


def test_a_lifter_fills_the_backbone_of_a_classifier(tmp_path: Path) -> None:
    model, target = tiny.build("dstformer"), Classifier(zeroed(tiny.build("dstformer")))
    report = transfer(target, tiny.save(tiny.official(model), tmp_path / "x.bin"))
    assert tiny.same_output(target.backbone, model)
    assert (report.source, report.target) == ("", "backbone.")
    assert not report.missing, "the head is not part of what receives"
    assert str(report).endswith("taken into backbone")


def test_a_classifier_fills_a_lifter(tmp_path: Path) -> None:
    model, target = tiny.build("dstformer"), zeroed(tiny.build("dstformer"))
    state = Classifier(model).state_dict()
    report = transfer(target, tiny.save({"model": tiny.prefixed(state, "module.")}, tmp_path / "x.bin"))
    assert tiny.same_output(target, model)
    assert (report.source, report.target) == ("backbone.", "")
    assert report.unused == ("head.weight", "head.bias")


def test_part_and_receiver_can_be_named(tmp_path: Path) -> None:
    model, target = tiny.build("dstformer"), Classifier(zeroed(tiny.build("dstformer")))
    path = tiny.save({"model": Classifier(model).state_dict()}, tmp_path / "x.bin")
    report = transfer(target, path, part="backbone", into="backbone")
    assert len(report.matched) == len(model.state_dict())
    with pytest.raises(CheckpointError, match=r"no part 'trunk'.*It has: backbone, head\."):
        transfer(target, path, into="trunk")


def test_nothing_that_fits_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    target = zeroed(tiny.build("poseformer"))
    path = tiny.save(tiny.build("videopose3d").state_dict(), tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"Nothing of .*x\.pt .* fits the model"):
        transfer(target, path)
    assert not any(parameter.any() for parameter in target.parameters())


# --- before resuming


def test_an_equal_configuration_fits(tmp_path: Path) -> None:
    path = tiny.save(tiny.lightning(tiny.build("dstformer")), tmp_path / "last.ckpt")
    check_fits(tiny.build("dstformer", dropout=0.1), path)


def test_other_joints_are_refused_with_the_dataset_that_fits(tmp_path: Path) -> None:
    content = tiny.lightning(tiny.build("dstformer"), config={"dataset": {"name": "h36m_gt"}})
    path = tiny.save(content, tmp_path / "last.ckpt")
    with pytest.raises(
        CheckpointError,
        match=r"was trained for 7 joints but dataset=humaneva15 has 4\. Use dataset=h36m_gt, or train a model for 4",
    ):
        check_fits(tiny.build("dstformer", num_joints=4), path, dataset="humaneva15")


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"num_frames": 9}, r"trained with num_frames=5 but .* num_frames=9\. Use model\.num_frames=5\."),
        ({"num_heads": 4}, r"num_heads=2 but .* num_heads=4\. Use model\.num_heads=2\."),
        ({"dim": 16, "att_fuse": False}, r"Use model\.dim=8 model\.att_fuse=true\."),
    ],
)
def test_other_sizes_are_refused_with_the_overrides_that_fit(changes: dict, remedy: str, tmp_path: Path) -> None:
    path = tiny.save(tiny.lightning(tiny.build("dstformer")), tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match=remedy):
        check_fits(tiny.build("dstformer", **changes), path)


def test_lists_are_written_as_overrides(tmp_path: Path) -> None:
    path = tiny.save(tiny.official(tiny.build("videopose3d")), tmp_path / "x.bin")
    with pytest.raises(CheckpointError, match=r"Use model\.filter_widths=\[3,3\]\."):
        check_fits(tiny.build("videopose3d", filter_widths=[3, 3, 3]), path)


def test_another_family_is_refused(tmp_path: Path) -> None:
    path = tiny.save(tiny.official(tiny.build("poseformer")), tmp_path / "x.bin")
    with pytest.raises(CheckpointError, match=r"holds a poseformer but a dstformer was built\. Use model=poseformer\."):
        check_fits(tiny.build("dstformer"), path)


def test_a_damaged_file_of_equal_sizes_gets_the_three_lists(tmp_path: Path) -> None:
    state = tiny.build("poseformer").state_dict()
    del state["head.1.bias"]
    path = tiny.save(state, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"does not fit poseformer:\n1 missing in the file:\n  head\.1\.bias"):
        check_fits(tiny.build("poseformer"), path)
