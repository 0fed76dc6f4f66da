"""The restricted unpickler: what it reads equals what numpy and pickle read, and nothing a file asks for is run."""

from __future__ import annotations

import collections
import copyreg
import io
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinema.data.safe_pickle import load_npz, load_pickle, npz_keys
from kinema.errors import DataError


def written(path: Path, value: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol))
    return path


def same(a: Any, b: Any) -> None:
    """Equal in type and value, all the way down."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    elif isinstance(a, np.ndarray):
        # Arrays come back in native byte order, as numpy has it for all protocols but 5.
        assert (a.dtype, a.shape) == (b.dtype.newbyteorder("="), b.shape)
        if a.dtype == object:
            for x, y in zip(a.ravel(), b.ravel(), strict=True):
                same(x, y)
        else:
            np.testing.assert_array_equal(a, b)
    else:
        assert a == b


NESTED = {
    "S1": {"Walking 1": [np.arange(12, dtype=np.float32).reshape(2, 3, 2)] * 2},
    "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "transposed objects": np.array([[None, "x", 3], [{1: np.zeros(2)}, [np.ones(1)], (np.ones(1), "y")]], object).T,
    "strings": np.array(["ab", "ccc"]),
    "bytes": np.array([b"ab"]),
    "bool": np.array([True, False]),
    "half": np.float16(1.5),
    "big endian": np.arange(3, dtype=">f4"),
    "empty": np.zeros((0, 17, 3)),
    "no dimension": np.array(3.0),
    "scalars": (np.bool_(True), np.int64(-3), np.str_("abc")),
    "builtins": [{1, 2}, frozenset({3}), 1 + 2j, b"\xff", b"", bytearray(b"q"), None, 2**70, True, 1.5, "é"],
}


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_reads_as_pickle_reads_it(tmp_path: Path, protocol: int) -> None:
    found = load_pickle(written(tmp_path / "x.pkl", NESTED, protocol))
    same(found, pickle.loads(pickle.dumps(NESTED, protocol)))


def test_ordered_and_default_dicts_come_back_as_dicts(tmp_path: Path) -> None:
    stored = [collections.OrderedDict(b=np.arange(2), a=1), collections.defaultdict(None, {3: 4})]
    found = load_pickle(written(tmp_path / "x.pkl", stored))
    same(found, [{"b": np.arange(2), "a": 1}, {3: 4}])


def test_shared_and_cyclic_containers_keep_their_identity(tmp_path: Path) -> None:
    array = np.arange(3)
    loop: list[Any] = [array, array]
    loop.append(loop)
    found = load_pickle(written(tmp_path / "x.pkl", loop))
    assert found[2] is found
    assert found[0] is found[1]


def test_npz_of_numbers_and_objects_reads_as_numpy_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(
        path, positions_3d=np.array(NESTED, dtype=object), plain=np.arange(4.0), objects=np.array([None, {}])
    )
    found = load_npz(path)
    with np.load(path, allow_pickle=True) as file:
        same(found["positions_3d"], file["positions_3d"].item())
        same(found["plain"], file["plain"])
        same(found["objects"], file["objects"])
    assert npz_keys(path) == ["positions_3d", "plain", "objects"]
    assert list(load_npz(path, ["plain"])) == ["plain"]


@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_files_of_old_and_new_numpy_are_read(tmp_path: Path, core: str) -> None:
    for protocol in (2, 4):
        data = pickle.dumps([np.arange(3, dtype=np.int16), np.float32(2)], protocol)
        # Protocol 2 ends a module's name with a line break, protocol 4 puts its length before it.
        for name in ("numpy.core", "numpy._core"):
            for part in (b".multiarray", b".numeric"):
                old, new = name.encode() + part, core.encode() + part
                data = data.replace(bytes([len(old)]) + old, bytes([len(new)]) + new).replace(b"c" + old, b"c" + new)
        if protocol == 4:
            data = data[:2] + data[11:]  # without the frame, whose length has changed
        assert core.encode() + b"." in data
        path = tmp_path / "x.pkl"
        path.write_bytes(data)
        same(load_pickle(path), [np.arange(3, dtype=np.int16), np.float32(2)])


def test_python_2_pickle_of_an_array_is_read(tmp_path: Path) -> None:
    # What Python 2 writes for {"a": np.array([1, 255], "uint8")}: byte strings where Python 3 has text and bytes.
    data = (
        b"(dp0\nS'a'\np1\ncnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\ntcnumpy\ndtype\n"
        b"(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbI00\nS'\\x01\\xff'\ntbs."
    )
    path = tmp_path / "x.pkl"
    path.write_bytes(data)
    same(load_pickle(path), {"a": np.array([1, 255], np.uint8)})


class Attack:
    """Pickles as a call of `function`."""

    def __init__(self, function: Any, *args: Any, state: Any = None) -> None:
        self.call = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def stored(tmp_path: Path, value: Any, nested: bool) -> Path:
    """A pickle, or the same inside an entry of an npz file."""
    if not nested:
        return written(tmp_path / "evil.pkl", value)
    np.savez(tmp_path / "evil.npz", positions_3d=np.array({"S1": {"Walking": [value]}}, dtype=object))
    return tmp_path / "evil.npz"


def load(path: Path) -> Any:
    return load_npz(path) if path.suffix == ".npz" else load_pickle(path)


@pytest.mark.parametrize("nested", [False, True], ids=["pickle", "npz"])
@pytest.mark.parametrize(
    ("function", "args"),
    [
        (Path.touch, ()),
        (eval, ("open('x', 'w')",)),
        (subprocess.check_output, (["touch", "x"],)),
        (np.load, ("x",)),
        (np.fromfile, ("x",)),
        (np.save, ("x", [1])),
        (np.memmap, ("x",)),
        (getattr, (np.ndarray, "tofile")),
        (np.frombuffer, (b"1234",)),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_a_call_is_refused_and_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nested: bool, function: Any, args: tuple[Any, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = stored(tmp_path, Attack(function, *(args or (Path("x"),))), nested)
    with pytest.raises(DataError, match=rf"evil\.\w+.* asks for .*\.{function.__name__.split('.')[0]}"):
        load(path)
    assert not (tmp_path / "x").exists()
    # The same file does its work when it is trusted, so the refusal above was needed.
    if function in (Path.touch, eval, np.save):
        if nested:
            np.load(path, allow_pickle=True)["positions_3d"].item()
        else:
            pickle.loads(path.read_bytes())
        assert list(tmp_path.glob("x*"))


RECONSTRUCT = np.zeros(1).__reduce__()[0]
SCALAR = np.float32(1).__reduce__()[0]


class Subclass(np.ndarray):
    """A subclass whose making would be a side effect."""


@pytest.mark.parametrize("nested", [False, True], ids=["pickle", "npz"])
@pytest.mark.parametrize(
    "attack",
    [
        Attack(RECONSTRUCT, Subclass, (0,), b"b"),
        Attack(RECONSTRUCT, np.memmap, (0,), b"b"),
        Attack(RECONSTRUCT, np.ndarray, (1 << 40,), b"b"),
        Attack(RECONSTRUCT, np.ndarray, (0,), b"O"),
        Attack(RECONSTRUCT, np.ndarray, (0,), b"b"),
        Attack(RECONSTRUCT, np.ndarray, (0,), b"b", state=(1, (1 << 40,), np.dtype("u1"), False, b"12")),
        Attack(RECONSTRUCT, np.ndarray, (0,), b"b", state=(1, (-1,), np.dtype("u1"), False, b"12")),
        Attack(RECONSTRUCT, np.ndarray, (0,), b"b", state=(1, (1,), np.dtype("O"), False, b"12345678")),
        Attack(RECONSTRUCT, np.ndarray, (0,), b"b", state=(1, (3,), np.dtype("O"), False, [1])),
        Attack(RECONSTRUCT, np.ndarray, (0,), b"b", state=(1, (1,), "u1", False, b"1")),
        Attack(SCALAR, np.dtype("O"), b"12345678"),
        Attack(SCALAR, np.dtype("f8"), b"1"),
        Attack(np.dtype, "f4,O"),
        Attack(np.dtype, [("a", "O")]),
        Attack(np.dtype, "V8", state=(3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 63)),
        Attack(np.dtype, "f4"),
        Attack(collections.defaultdict, list),
        Attack(collections.OrderedDict, ((1, 2),), state={"items": 1}),
        Attack(bytearray, 1 << 40),
        Attack(np.ndarray, (1 << 40,)),
    ],
    ids=lambda attack: f"{attack.call[0].__name__}-{len(str(attack.call))}",
)
def test_allowed_names_are_no_way_around(tmp_path: Path, nested: bool, attack: Attack) -> None:
    with pytest.raises(DataError, match="evil"):
        load(stored(tmp_path, attack, nested))


def test_stand_ins_cannot_be_changed_by_a_state(tmp_path: Path) -> None:
    # BUILD on a function would set its attributes, its defaults for example.
    for state in (b"}S'x'\nI1\ns", b"(N}S'__defaults__'\nNst"):
        (tmp_path / "x.pkl").write_bytes(b"cnumpy.core.multiarray\n_reconstruct\n" + state + b"b.")
        with pytest.raises(DataError, match="cannot be given a state"):
            load_pickle(tmp_path / "x.pkl")


def test_classes_cannot_be_made_by_newobj(tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(b"\x80\x02cnumpy\nndarray\n(I4\nt\x81.")
    with pytest.raises(DataError, match=r"x\.pkl"):
        load_pickle(tmp_path / "x.pkl")


def test_extension_codes_and_persistent_ids_are_refused(tmp_path: Path) -> None:
    copyreg.add_extension("os", "getcwd", 240)
    try:
        (tmp_path / "x.pkl").write_bytes(b"\x80\x02\x82\xf0.")
        with pytest.raises(DataError, match=r"asks for os\.getcwd"):
            load_pickle(tmp_path / "x.pkl")
    finally:
        copyreg.remove_extension("os", "getcwd", 240)
    (tmp_path / "y.pkl").write_bytes(b"\x80\x02X\x01\x00\x00\x00aQ.")
    with pytest.raises(DataError, match="outside the file"):
        load_pickle(tmp_path / "y.pkl")


def test_dotted_names_do_not_reach_attributes(tmp_path: Path) -> None:
    stream = io.BytesIO()
    stream.write(b"\x80\x04")
    for text in ("numpy._core.multiarray", "_reconstruct._make.__globals__"):
        stream.write(b"\x8c" + bytes([len(text)]) + text.encode())
    stream.write(b"\x93.")
    (tmp_path / "x.pkl").write_bytes(stream.getvalue())
    with pytest.raises(DataError, match="asks for"):
        load_pickle(tmp_path / "x.pkl")


@pytest.mark.parametrize("kept", [0, 1, 10, 200, -1])
def test_truncated_pickle_is_named(tmp_path: Path, kept: int) -> None:
    whole = pickle.dumps(NESTED, 4)
    (tmp_path / "cut.pkl").write_bytes(whole[:kept])
    with pytest.raises(DataError, match=r"cut\.pkl cannot be unpickled .* copy or download it again"):
        load_pickle(tmp_path / "cut.pkl")


def test_truncated_or_foreign_npz_is_named(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "whole.npz", positions_3d=np.array(NESTED, dtype=object))
    whole = (tmp_path / "whole.npz").read_bytes()
    for content in (b"", b"<html>", whole[:100], whole[:-1], whole[:-40]):
        (tmp_path / "cut.npz").write_bytes(content)
        with pytest.raises(DataError, match=r"cut\.npz is no readable npz file .* copy or download it again"):
            load_npz(tmp_path / "cut.npz")
    # A flipped bit inside the compressed data.
    broken = bytearray(whole)
    broken[len(whole) // 2] ^= 0xFF
    (tmp_path / "flipped.npz").write_bytes(bytes(broken))
    with pytest.raises(DataError, match="flipped"):
        load_npz(tmp_path / "flipped.npz")


def test_entry_that_is_no_array_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("positions_3d.npy", b"no array")
    with pytest.raises(DataError, match=r"x\.npz\[positions_3d\] is no numpy array"):
        load_npz(tmp_path / "x.npz")


def test_header_that_lies_about_its_objects_is_refused(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": ()})
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a.npy", header.getvalue() + pickle.dumps([1, 2]))
    with pytest.raises(DataError, match=r"x\.npz\[a\] holds another thing"):
        load_npz(tmp_path / "x.npz")


def test_missing_entry_and_missing_file_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", other=np.zeros(1))
    with pytest.raises(DataError, match=r"x\.npz has no entry 'positions_3d'; it holds other"):
        load_npz(tmp_path / "x.npz", ["positions_3d"])
    for reader in (load_npz, load_pickle, npz_keys):
        with pytest.raises(DataError, match=r"gone\.npz not found"):
            reader(tmp_path / "gone.npz")


def test_records_and_times_are_refused(tmp_path: Path) -> None:
    for value in (np.zeros(1, [("a", "f4")]), np.zeros(1, "M8[s]")):
        with pytest.raises(DataError, match="is not read"):
            load_pickle(written(tmp_path / "x.pkl", value))


def test_deep_nesting_is_an_error_and_no_crash(tmp_path: Path) -> None:
    depth = sys.getrecursionlimit() * 2
    (tmp_path / "x.pkl").write_bytes(b"]" * (depth + 1) + b"a" * depth + b".")
    with pytest.raises(DataError, match="RecursionError"):
        load_pickle(tmp_path / "x.pkl")
