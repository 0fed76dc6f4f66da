"""A wrong word costs seconds and its message says the right one; nothing is executed or overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.running import in_process, run


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["mode=tets"], "mode=test"),
        (["mode=test"], "ckpt=path/to/file"),
        (["trainer=gpu"], "Use trainer=cpu"),
        (["trainer=cpu", "trainer.precision=16-mixed"], "Use trainer.precision=32"),
        (["objective=val/mpjp"], "Use objective=val/"),
        (["model=poseformer", "dataset.frames=27"], "model.num_frames=27"),
        (["dataset.nmae=1"], "Did you mean name"),
        (["mode=test", "ckpt=nowhere/best.bin"], "nowhere/best.bin"),
        (["resume=nowhere/last.ckpt"], "Use resume=auto"),
        (["dataset=h36m_cpn", "paths.data_dir=nowhere"], "data_3d_h36m.npz"),
        (["model.num_joints=15"], "model.num_joints=17"),
        (["task.losses.mpjpe=1", "+task.losses.mpjp=1"], "mpjp"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_choice_is_refused_with_the_right_one(
    words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    has_gpu = __import__("torch").cuda.is_available()
    if has_gpu and any("gpu" in word or "16-mixed" in word for word in words):
        pytest.skip("a machine with a GPU accepts this")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError, match="ended with code 2"):
        in_process(*words, "hydra.run.dir=out")
    told = capsys.readouterr().err
    assert sentence in told
    assert "Traceback" not in told
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_process_ends_with_the_code_of_a_user_error_and_without_a_trace(tmp_path: Path) -> None:
    result = run("dataset.nmae=1", cwd=tmp_path, check=False)
    assert result.returncode == 2 and "Did you mean name" in result.stderr and "Traceback" not in result.stderr


def test_help_and_info_are_for_newcomers(tmp_path: Path) -> None:
    shown = run("--help", cwd=tmp_path).stdout
    for word in ("python run.py", "mode=test", "model:", "dataset:", "dstformer_lite", "resume=auto"):
        assert word in shown, word
    assert "conf" in run("--info", cwd=tmp_path).stdout
