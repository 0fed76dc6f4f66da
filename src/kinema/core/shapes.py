"""Shape checks at the borders: dataset output, task input, checkpoint load."""

from __future__ import annotations

from typing import Protocol

from kinema.errors import DataError


class _Shaped(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...


def expect(x: _Shaped, pattern: str, name: str = "tensor", **sizes: int) -> dict[str, int]:
    """Check the shape of `x` against a pattern such as "B T J 3" and return the sizes it binds.

    Args:
        x: a tensor or array.
        pattern: space-separated axes; a number is a fixed size, a letter binds one size (equal letters must be
            equal), a leading "..." allows any further leading axes.
        name: how the value is called in the message.
        sizes: letters whose size is known beforehand, for example J=17.

    Returns:
        Every letter with its size.

    Raises:
        DataError: naming the value, its shape and the axis that does not fit.
    """
    axes = pattern.split()
    shape = tuple(x.shape)
    free = axes[:1] == ["..."]
    axes = axes[1:] if free else axes
    found = shape[len(shape) - len(axes) :] if free and len(shape) >= len(axes) else shape
    if len(found) != len(axes):
        raise DataError(f"{name} has shape {shape}, expected {pattern}: {len(axes)} axes, not {len(shape)}.")
    bound = dict(sizes)
    for axis, size in zip(axes, found, strict=True):
        wanted = int(axis) if axis.isdigit() else bound.setdefault(axis, size)
        if wanted != size:
            raise DataError(f"{name} has shape {shape}, expected {pattern} with {axis}={wanted}, found {size}.")
    return bound
