"""Look-up of models, and what state dicts tell."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from kinema.errors import CheckpointError
from kinema.models.registry import depth_of, model_class, models, ratio_of, register


def test_every_model_is_found_by_its_name() -> None:
    known = models()
    assert {"dstformer", "poseformer", "videopose3d"} <= set(known)
    for name, family in known.items():
        assert model_class(name) is family
        assert family.registered_name == name  # type: ignore[attr-defined]


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(CheckpointError, match="Did you mean 'dstformer'"):
        model_class("dstfomer")


def test_a_name_is_given_once() -> None:
    with pytest.raises(ValueError, match="taken by"):

        @register("dstformer")
        class Another(nn.Module):
            pass


def test_depth_counts_numbered_blocks_only() -> None:
    names = ["blocks.0.a", "blocks.0.b", "blocks.1.a", "blocks.10.a", "blocks.norm.a", "myblocks.2.a", "blocks_st.3.a"]
    assert depth_of(dict.fromkeys(names, (1,)), "blocks") == 3


@given(dim=st.integers(1, 2000), hidden=st.integers(0, 8000))
def test_ratio_gives_back_the_hidden_width(dim: int, hidden: int) -> None:
    assert int(dim * ratio_of(hidden, dim)) == hidden
