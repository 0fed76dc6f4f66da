"""Reading a file of anybody: nothing runs, nothing wider than documented is allowed, every failure is a sentence."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kinema.checkpoints.files import SAFE_GLOBALS, read_content
from kinema.errors import CheckpointError
from tests.checkpoints import tiny

WEIGHTS = {"model_pos": {"a.weight": torch.arange(600.0).reshape(20, 30), "a.bias": torch.ones(7)}}


class Calls:
    """A pickle that calls a function when it is read."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("old", [False, True], ids=["zip", "old"])
@pytest.mark.parametrize("function", [os.system, exec, np.save, getattr, torch.load], ids=lambda f: f.__name__)
def test_a_malicious_pickle_executes_nothing(function: Any, old: bool, tmp_path: Path) -> None:
    target = tmp_path / "touched"
    arguments = {
        os.system: (f"touch {target}",),
        exec: (f"open({str(target)!r}, 'w').close()",),
        np.save: (str(target), 1),
        getattr: ([], "append"),
        torch.load: (str(target),),
    }[function]
    path = tiny.save({"model_pos": WEIGHTS["model_pos"], "epoch": Calls(function, *arguments)}, tmp_path / "x.bin", old)
    with pytest.raises(CheckpointError, match=r"nothing was executed") as caught:
        read_content(path)
    assert str(path) in str(caught.value)
    assert function.__name__ in str(caught.value) or "posix" in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


def test_a_plain_malicious_pickle_executes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "plain.bin"
    path.write_bytes(pickle.dumps(Calls(os.system, f"touch {tmp_path / 'touched'}"), protocol=2))
    with pytest.raises(CheckpointError):
        read_content(path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_whole_pickled_module_is_refused(tmp_path: Path) -> None:
    path = tiny.save(tiny.build("poseformer"), tmp_path / "whole.pth")
    with pytest.raises(CheckpointError, match=r"PoseFormer.*save the weights alone"):
        read_content(path)


def test_the_allow_list_is_the_documented_one() -> None:
    names = {f"{item.__module__}.{item.__qualname__}" for item in SAFE_GLOBALS}
    dtypes = {name for name in names if name.endswith("DType")}
    assert len(dtypes) == 7
    assert names - dtypes == {
        "numpy.ndarray",
        "numpy.dtype",
        "numpy.random.mtrand.RandomState",
        "numpy.random._mt19937.MT19937",
        "numpy.random._pickle.__randomstate_ctor",
        "numpy.random._pickle.__bit_generator_ctor",
        "numpy.random.__RandomState_ctor",
        "numpy.core.multiarray._reconstruct",
        "numpy._core.multiarray._reconstruct",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
    }


def test_the_allow_list_ends_with_the_reading(tmp_path: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    path = tiny.save({"model_pos": WEIGHTS["model_pos"], "min_loss": np.float64(3)}, tmp_path / "x.bin")
    assert read_content(path)["min_loss"] == 3
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


@pytest.mark.parametrize("old", [False, True], ids=["zip", "old"])
def test_random_state_goes_on_where_it_was_saved(old: bool, tmp_path: Path) -> None:
    state = np.random.RandomState(7)
    state.permutation(100)
    path = tiny.save({"random_state": state, **WEIGHTS}, tmp_path / "x.bin", old)
    assert np.array_equal(read_content(path)["random_state"].permutation(50), state.permutation(50))


@pytest.mark.parametrize("value", [np.float64(0.5), np.float32(0.5), np.int64(3), np.bool_(True), np.arange(3.0)])
def test_numpy_values_beside_tensors_are_read(value: Any, tmp_path: Path) -> None:
    found = read_content(tiny.save({**WEIGHTS, "min_loss": value}, tmp_path / "x.bin"))["min_loss"]
    assert type(found) is type(value)
    assert np.array_equal(found, value)


def test_files_of_either_numpy_are_read(tmp_path: Path) -> None:
    path = tiny.save(
        {**WEIGHTS, "random_state": np.random.RandomState(1), "min_loss": np.float64(2)}, tmp_path / "x.bin"
    )
    other = tmp_path / "other.bin"
    renamed = {b"cnumpy._core.multiarray\n": b"cnumpy.core.multiarray\n"}
    if np.lib.NumpyVersion(np.__version__) < "2.0.0":
        renamed = {old: new for new, old in renamed.items()}
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(other, "w", zipfile.ZIP_STORED) as copy:
        for item in source.infolist():
            data = source.read(item)
            for before, after in renamed.items():
                assert item.filename.endswith("data.pkl") <= (before in data)
                data = data.replace(before, after) if item.filename.endswith("data.pkl") else data
            copy.writestr(item, data)
    found = read_content(other)
    assert found["min_loss"] == 2
    assert found["random_state"].randint(1000) == np.random.RandomState(1).randint(1000)


@pytest.mark.parametrize("old", [False, True], ids=["zip", "old"])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_a_sentence(share: float, old: bool, tmp_path: Path) -> None:
    whole = tiny.save(WEIGHTS, tmp_path / "whole.bin", old).read_bytes()
    path = tmp_path / "cut.bin"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CheckpointError, match=r"cut\.bin \(.* bytes\) is truncated or no checkpoint: .*Copy it again"):
        read_content(path)


def test_a_truncated_safetensors_file_is_a_sentence(tmp_path: Path) -> None:
    from safetensors.torch import save

    path = tmp_path / "cut.safetensors"
    path.write_bytes(save(WEIGHTS["model_pos"])[:-40])
    with pytest.raises(CheckpointError, match="truncated or no checkpoint"):
        read_content(path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a text file"),
        (b"<!DOCTYPE html><html>quota exceeded", "is a text file"),
        (b"not a checkpoint at all", "truncated or no checkpoint"),
    ],
)
def test_what_is_no_checkpoint_is_a_sentence(content: bytes, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=sentence):
        read_content(path)


def test_a_file_without_a_dict_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds a Tensor, not a dict"):
        read_content(tiny.save(torch.ones(3), tmp_path / "x.pt"))


def test_a_missing_file_lists_those_nearby(tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    for name in ("last.ckpt", "best.ckpt"):
        (tmp_path / "run" / "checkpoints" / name).touch()
    (tmp_path / "run" / "notes.txt").touch()
    with pytest.raises(CheckpointError, match=r"bets\.ckpt not found\. Checkpoints nearby: \S*best\.ckpt, ") as caught:
        read_content(tmp_path / "run" / "checkpoints" / "bets.ckpt")
    assert "last.ckpt" in str(caught.value)
    assert "notes" not in str(caught.value)
    with pytest.raises(CheckpointError, match=r"run is a folder\. Checkpoints nearby: .*best\.ckpt"):
        read_content(tmp_path / "run")
    for file in (tmp_path / "run" / "checkpoints").iterdir():
        file.unlink()
    with pytest.raises(CheckpointError, match=r"No checkpoint .* lies in "):
        read_content(tmp_path / "run" / "checkpoints" / "none" / "x.bin")


def test_a_missing_folder_is_searched_from_the_nearest_one_that_exists(tmp_path: Path) -> None:
    (tmp_path / "a.bin").touch()
    with pytest.raises(CheckpointError, match=r"Checkpoints nearby: .*a\.bin"):
        read_content(tmp_path / "no" / "such" / "folder" / "a.bin")
