"""Ten kinds of bad input through the command line: the message, and that nothing was executed or overwritten."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from kinema.cli import main
from tests.data.layouts import Layout, layout


class _Trap:
    """A pickle that would leave a file behind if it were executed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (Path.touch, (self.path,))


def _digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _missing(data: Layout, folder: Path) -> list[str]:
    (folder / "data_3d_cmu.npz").unlink()
    return []


def _truncated(data: Layout, folder: Path) -> list[str]:
    path = folder / "data_2d_cmu_noisy.npz"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return []


def _wrong_joints(data: Layout, folder: Path) -> list[str]:
    data.positions_3d = {s: {a: x[:, :15] for a, x in actions.items()} for s, actions in data.positions_3d.items()}
    data.save(folder)
    return []


def _nan(data: Layout, folder: Path) -> list[str]:
    data.positions_3d["train_A"]["walk 1"][7, 3] = np.nan
    data.save(folder)
    return []


def _archive_joints(data: Layout, folder: Path) -> list[str]:
    data.positions_3d = {
        s: {a: np.pad(x, ((0, 0), (0, 15), (0, 0))) for a, x in actions.items()}
        for s, actions in data.positions_3d.items()
    }
    data.save(folder)
    return []


def _millimetres(data: Layout, folder: Path) -> list[str]:
    data.positions_3d = {s: {a: x * 1000 for a, x in actions.items()} for s, actions in data.positions_3d.items()}
    data.save(folder)
    return []


def _filter(data: Layout, folder: Path) -> list[str]:
    return ["dataset.actions=[wallk]"]


def _foreign(data: Layout, folder: Path) -> list[str]:
    torch.save({"state_dict": {"stem.conv1.weight": torch.zeros(3, 3)}}, folder / "best.bin")
    return ["mode=test", f"ckpt={folder / 'best.bin'}"]


def _malicious(data: Layout, folder: Path) -> list[str]:
    with (folder / "evil.bin").open("wb") as file:
        pickle.dump({"model_pos": _Trap(folder / "executed")}, file)
    entry = np.array(_Trap(folder / "executed"), dtype=object)
    np.savez(folder / "data_3d_cmu.npz", positions_3d=entry)
    return []


def _malicious_checkpoint(data: Layout, folder: Path) -> list[str]:
    torch.save({"model_pos": _Trap(folder / "executed")}, folder / "evil.bin")
    return ["mode=test", f"ckpt={folder / 'evil.bin'}"]


def _impossible(data: Layout, folder: Path) -> list[str]:
    return ["model=poseformer", "model.num_frames=27", "dataset.frames=81"]


FAULTS = [
    (_missing, ["data_3d_cmu.npz", "not found", "paths.data_dir="]),
    (_truncated, ["data_2d_cmu_noisy.npz"]),
    (_wrong_joints, ["15 joints", "17 expected", "dataset.skeleton=humaneva15"]),
    (_nan, ["NaN", "train_A/walk 1", "first 7", "dataset.on_nan=mask"]),
    (_archive_joints, ["32 joints", "17 expected", "source_skeleton"]),
    (_millimetres, ["millimetres", "dataset.unit=mm"]),
    (_filter, ["wallk", "walk"]),
    (_foreign, ["best.bin", "1 tensors", "stem.conv1.weight", "dstformer"]),
    (_malicious, ["data_3d_cmu.npz", "touch"]),
    (_malicious_checkpoint, ["evil.bin"]),
    (_impossible, ["27 frames", "dataset.frames=81", "model.num_frames=81"]),
]


@pytest.mark.parametrize(("spoil", "words"), FAULTS, ids=[spoil.__name__.strip("_") for spoil, _ in FAULTS])
def test_bad_input_ends_with_its_sentence(
    spoil: Callable[[Layout, Path], list[str]],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = layout()
    folder = data.save(tmp_path / "data" / "cmu_mocap")
    overrides = spoil(data, folder)
    earlier = tmp_path / "run" / "checkpoints" / "best.ckpt"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("weights of an earlier run")
    before = _digests(tmp_path)
    arguments = [
        "dataset=cmu", "dataset.trials_val=[train_A/squat 2]", "trainer=cpu", "trainer.max_epochs=1", "callbacks=none",
        "logger=none", f"paths.data_dir={tmp_path / 'data'}", f"hydra.run.dir={tmp_path / 'run'}", *overrides,
    ]  # fmt: skip
    monkeypatch.setattr("sys.argv", ["run.py", *arguments])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    message = capsys.readouterr().err
    for word in words:
        assert word in message, message
    assert "Traceback" not in message
    after = _digests(tmp_path)
    assert {path: after[path] for path in before} == before, "an existing file was touched"
    assert not (folder / "executed").exists(), "a pickle was executed"
    assert not [path for path in after if path.endswith((".ckpt", ".npy")) and path not in before]
