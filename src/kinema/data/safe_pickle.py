"""Restricted reading of pickles and of npz files with object entries: numpy arrays and builtin containers, no code.

Most data files of this field are pickles, and an ordinary unpickler runs whatever a file asks for. Here a pickle
never reaches a function or class of its own choosing: every global it names is looked up in a short table of
stand-ins that check their arguments, and everything else is refused before it is called. Not even numpy's own
rebuilding functions are used, since they trust their arguments: arrays are built from the checked dtype, shape and
bytes by `numpy.frombuffer` (so they are read-only and share the pickle's memory; byte order becomes native).
"""

from __future__ import annotations

import math
import pickle
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format

from kinema.errors import DataError

# What a damaged or forged stream makes the unpickler and our checks raise.
_BROKEN = (
    pickle.UnpicklingError,
    EOFError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    OverflowError,
    RecursionError,
    TypeError,
    UnicodeError,
    ValueError,
)
_AGAIN = "The file is damaged or incomplete: copy or download it again."
_ATOMS = frozenset({str, bytes, int, float, bool, complex, type(None), bytearray})


def load_pickle(path: str | Path, *, encoding: str = "latin1") -> Any:
    """Read a pickle that holds numpy arrays, numpy scalars and builtin containers.

    Args:
        path: the file.
        encoding: of the strings in pickles written by Python 2; numpy's own data needs "latin1".

    Returns:
        The object. OrderedDict and defaultdict come back as dict, arrays are read-only.

    Raises:
        DataError: the file is missing or damaged, or names anything beyond the above; nothing of it was executed.
    """
    path = existing(path)
    with path.open("rb") as file:
        return _unpickle(file, path.name, encoding)


def load_npz(path: str | Path, keys: Iterable[str] | None = None, *, encoding: str = "latin1") -> dict[str, Any]:
    """Read entries of an npz file, object arrays included.

    Args:
        path: the file.
        keys: entries to read; None reads all of them.
        encoding: see `load_pickle`.

    Returns:
        Entry name -> array; an object array of no dimension (the way a dict is stored) gives the object inside.

    Raises:
        DataError: as `load_pickle`, and for an entry that is not there.
    """
    path = existing(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name.removesuffix(".npy"): name for name in archive.namelist()}
            wanted = list(members) if keys is None else list(keys)
            missing = [key for key in wanted if key not in members]
            if missing:
                raise DataError(
                    f"{path} has no entry {missing[0]!r}; it holds {', '.join(members) or 'nothing'}. "
                    "It is another kind of file than expected here, or an incomplete one."
                )
            return {key: _read_member(archive, members[key], path, encoding) for key in wanted}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
        raise DataError(f"{path} is no readable npz file ({error}). {_AGAIN}") from error


def npz_keys(path: str | Path) -> list[str]:
    """Entry names of an npz file, without reading them."""
    path = existing(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path} is no readable npz file ({error}). {_AGAIN}") from error


def existing(path: str | Path) -> Path:
    """Return the path of a file that is there, else raise DataError."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} not found. Check the path, or set paths.data_dir to the folder that holds the data.")
    return path


def _read_member(archive: zipfile.ZipFile, member: str, path: Path, encoding: str) -> Any:
    """One entry: numbers by numpy itself, objects through the restricted unpickler."""
    label = f"{path.name}[{member.removesuffix('.npy')}]"
    with archive.open(member) as file:
        try:
            version = npy_format.read_magic(file)
            read_header = npy_format.read_array_header_2_0 if version != (1, 0) else npy_format.read_array_header_1_0
            shape, _, dtype = read_header(file)
        except ValueError as error:
            raise DataError(f"{label} is no numpy array ({error}). {_AGAIN}") from error
        if dtype.hasobject:
            if dtype.kind != "O":
                raise DataError(f"{label} has dtype {dtype}; records that hold objects are not read.")
            value = _unpickle(file, label, encoding)
            if not isinstance(value, np.ndarray) or value.shape != shape or value.dtype != dtype:
                raise DataError(f"{label} holds another thing than its header says. {_AGAIN}")
            return value.item() if value.ndim == 0 else value
    with archive.open(member) as file:
        try:
            return npy_format.read_array(file, allow_pickle=False)
        except ValueError as error:
            raise DataError(f"{label}: {error}. {_AGAIN}") from error


def _unpickle(file: IO[bytes], label: str, encoding: str) -> Any:
    try:
        return _finish(_Restricted(file, label, encoding).load(), {})
    except (DataError, zipfile.BadZipFile, zlib.error):
        raise
    except _BROKEN as error:
        raise DataError(f"{label} cannot be unpickled ({type(error).__name__}: {error}). {_AGAIN}") from error


class _Restricted(pickle.Unpickler):
    """Answers the globals of a pickle from `_STAND_INS` alone."""

    def __init__(self, file: IO[bytes], label: str, encoding: str) -> None:
        super().__init__(file, encoding=encoding)
        self._label = label

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise DataError(
                f"{self._label} asks for {module}.{name}, which is neither a numpy array nor a builtin container. "
                "Nothing of it was executed. Use the original file, or store plain arrays, dicts and lists."
            ) from None

    def persistent_load(self, pid: Any) -> Any:
        raise DataError(f"{self._label} refers to something outside the file ({pid!r}); such pickles are not read.")


class _Maker:
    """A function a pickle may call. It is no type and takes no state, so a pickle can neither subclass nor alter it."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *args: Any) -> Any:
        return self._make(*args)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("a global cannot be given a state")


class _Dtype:
    """A numpy dtype on its way: what `numpy.dtype(code, align, copy)` and its state say."""

    __slots__ = ("value",)

    def __init__(self, code: object, *_: object) -> None:
        # Booleans, numbers, strings and objects; records and times do not occur in pose files.
        if not isinstance(code, str) or not re.fullmatch(r"[<>|=]?[?biufcSUO]\d{0,6}", code):
            raise pickle.UnpicklingError(f"dtype {code!r} is not read")
        self.value = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, order, subdtype, names, fields, *_ = state
        if order not in ("<", ">", "|", "=") or any(part is not None for part in (subdtype, names, fields)):
            raise pickle.UnpicklingError("records and sub-arrays are not read")
        self.value = self.value.newbyteorder(order)


class _Array:
    """A numpy array on its way: made empty, then given its state; `_finish` puts the array in its place."""

    __slots__ = ("objects", "value")
    __hash__ = None  # type: ignore[assignment]  # no array is a dict key or a member of a set

    def __init__(self) -> None:
        self.value: np.ndarray | None = None
        self.objects: list[Any] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        shape, dtype, fortran, data = state[-4:]
        if not isinstance(dtype, _Dtype):
            raise pickle.UnpicklingError("an array without dtype")
        if dtype.value.hasobject:
            if not isinstance(data, list) or math.prod(_checked_shape(shape)) != len(data):
                raise pickle.UnpicklingError("an object array whose shape and contents differ")
            self.value = np.empty(shape, dtype=object)
            self.objects = data
        else:
            self.value = _from_bytes(data, dtype, shape, "F" if fortran else "C")


def _checked_shape(shape: object) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape):
        raise pickle.UnpicklingError(f"{shape!r} is no shape")
    return shape


def _from_bytes(data: Any, dtype: object, shape: object, order: object) -> np.ndarray:
    """Array from raw bytes; Python 2 pickles bring them as a latin1 string."""
    if not isinstance(dtype, _Dtype) or dtype.value.hasobject or order not in ("C", "F"):
        raise pickle.UnpicklingError("raw bytes cannot fill such an array")
    raw = data.encode("latin1") if isinstance(data, str) else data
    if not isinstance(raw, bytes | bytearray):
        raise pickle.UnpicklingError("an array without bytes")
    sizes = _checked_shape(shape)
    if math.prod(sizes) * dtype.value.itemsize != len(raw):
        raise pickle.UnpicklingError(f"{len(raw)} bytes for an array of shape {sizes} and dtype {dtype.value}")
    if not len(raw):
        return np.empty(sizes, dtype.value)
    array = np.frombuffer(raw, dtype.value).reshape(sizes, order="F" if order == "F" else "C")
    return array if dtype.value.isnative else array.astype(dtype.value.newbyteorder("="))


def _reconstruct(subtype: object, shape: object, code: object) -> _Array:
    # numpy always writes (ndarray, (0,), b"b") here; another subtype would be instantiated, another shape allocated.
    if subtype is not _NDARRAY or shape != (0,) or code not in (b"b", "b"):
        raise pickle.UnpicklingError("numpy's _reconstruct called for something else than an empty ndarray")
    return _Array()


def _scalar(dtype: object, data: Any) -> Any:
    return _from_bytes(data, dtype, (), "C")[()]


def _frombuffer(data: Any, dtype: object, shape: object, order: object) -> np.ndarray:
    return _from_bytes(data, dtype, shape, order)


def _encode(text: object, encoding: object) -> bytes:
    # How Python 3 writes bytes in protocols 0 to 2.
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("only latin1 bytes are decoded")
    return text.encode("latin1")


def _bytearray(data: Any = b"", encoding: object = "latin-1") -> bytearray:
    if isinstance(data, str):
        return bytearray(data, "latin1")
    if not isinstance(data, bytes):
        raise pickle.UnpicklingError("a bytearray is made of bytes")
    return bytearray(data)


def _bytes() -> bytes:
    # Protocols 0 to 2 write the empty string of bytes as a call without arguments.
    return b""


def _complex(real: float, imaginary: float) -> complex:
    return complex(float(real), float(imaginary))


def _dict(pairs: Sequence[Any] | dict[Any, Any] = ()) -> dict[Any, Any]:
    return dict(pairs)


def _default_dict(factory: object = None) -> dict[Any, Any]:
    if factory is not None:
        raise pickle.UnpicklingError("a defaultdict with a factory")
    return {}


def _set(items: list[Any] | tuple[Any, ...] = ()) -> set[Any]:
    return set(items)


def _frozenset(items: list[Any] | tuple[Any, ...] = ()) -> frozenset[Any]:
    return frozenset(items)


# Stands for the class numpy.ndarray, which only ever is the first argument of `_reconstruct`.
_NDARRAY = _Maker(_default_dict)

_STAND_INS: dict[tuple[str, str], _Maker] = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Maker(_Dtype),
    ("_codecs", "encode"): _Maker(_encode),
    ("collections", "OrderedDict"): _Maker(_dict),
    ("collections", "defaultdict"): _Maker(_default_dict),
}
# numpy 2 renamed numpy.core to numpy._core; files of both ages are around.
for _core in ("numpy.core", "numpy._core"):
    _STAND_INS[f"{_core}.multiarray", "_reconstruct"] = _Maker(_reconstruct)
    _STAND_INS[f"{_core}.multiarray", "scalar"] = _Maker(_scalar)
    _STAND_INS[f"{_core}.numeric", "_frombuffer"] = _Maker(_frombuffer)
for _builtins in ("builtins", "__builtin__"):
    _STAND_INS[_builtins, "set"] = _Maker(_set)
    _STAND_INS[_builtins, "frozenset"] = _Maker(_frozenset)
    _STAND_INS[_builtins, "bytearray"] = _Maker(_bytearray)
    _STAND_INS[_builtins, "bytes"] = _Maker(_bytes)
    _STAND_INS[_builtins, "complex"] = _Maker(_complex)


def _finish(value: Any, seen: dict[int, Any]) -> Any:
    """Put the arrays into their places, in lists and dicts without copying these."""
    kind = type(value)
    if kind in _ATOMS:
        return value
    if id(value) in seen:
        return seen[id(value)]
    if kind is list:
        seen[id(value)] = value
        for i, item in enumerate(value):
            if type(item) not in _ATOMS:
                value[i] = _finish(item, seen)
    elif kind is dict:
        seen[id(value)] = value
        for key, item in value.items():
            if type(item) not in _ATOMS:
                value[key] = _finish(item, seen)
    elif kind is tuple:
        seen[id(value)] = finished = tuple(_finish(item, seen) for item in value)
        return finished
    elif kind is _Array:
        if value.value is None:
            raise pickle.UnpicklingError("an array that was never filled")
        seen[id(value)] = value.value
        if value.objects is not None:
            cells = np.empty(len(value.objects), dtype=object)
            for i, item in enumerate(value.objects):
                cells[i] = _finish(item, seen)
            value.value[...] = cells.reshape(value.value.shape)
        return value.value
    elif kind in (_Dtype, _Maker):
        raise pickle.UnpicklingError("a type in the place of a value")
    return value
