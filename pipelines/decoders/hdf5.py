"""Arrays in HDF5 files from untrusted sources: what they declare is checked before anything is read.

Needs the optional extra ``hdf5``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from omnimill.errors import BadRecord, ConfigError

# Filters that are part of HDF5 or of h5py: deflate, shuffle, Fletcher's checksum, LZF. Others are plug-ins, which
# the library would load as code.
_FILTERS = {1, 2, 3, 32000}
_MAX_CHUNK_BYTES = 256 << 20


def require_h5py() -> Any:
    """h5py; raises ConfigError that says how to get it."""
    try:
        import h5py  # noqa: PLC0415 - optional extra
    except ImportError:
        raise ConfigError("HDF5 files need the optional extra hdf5: pip install 'omnimill[hdf5]'") from None
    return h5py


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """A file to read from.

    Raises:
        BadRecord: ``hdf5_unreadable``.
    """
    h5py = require_h5py()
    try:
        file = h5py.File(path, "r")
    except OSError as fault:
        raise BadRecord("hdf5_unreadable", str(fault).partition("\n")[0]) from None
    with file:
        yield file


def dataset(file: Any, name: str, axes: str) -> Any:
    """A dataset of numbers, stored in this very file without plug-ins.

    Args:
        axes: a letter for each of its axes.

    Raises:
        BadRecord: ``missing_field``, ``hdf5_refused`` when it is a link or lies elsewhere, ``hdf5_shape``.
    """
    h5py = require_h5py()
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        found = ", ".join(sorted(file)[:20])
        there = name in file
        raise BadRecord("hdf5_refused" if there else "missing_field", f"no dataset {name!r} of its own; it has {found}")
    values = file[name]
    if not isinstance(values, h5py.Dataset) or values.is_virtual or values.external is not None:
        raise BadRecord("hdf5_refused", f"{name!r} is no dataset that is stored in this file")
    if values.dtype.kind not in "fiu" or values.ndim != len(axes):
        raise BadRecord("hdf5_shape", f"{name!r} is {values.dtype} {list(values.shape)}; wanted are the axes {axes}")
    plan = values.id.get_create_plist()
    filters = {plan.get_filter(i)[0] for i in range(plan.get_nfilters())}
    if filters - _FILTERS:
        raise BadRecord("hdf5_refused", f"{name!r} is stored with filters {sorted(filters - _FILTERS)}")
    chunk = math.prod(values.chunks or (1,)) * values.dtype.itemsize
    if chunk > _MAX_CHUNK_BYTES:
        raise BadRecord("hdf5_shape", f"{name!r} is stored in chunks of {chunk} bytes; at most {_MAX_CHUNK_BYTES}")
    return values


def read_frame(values: Any, axes: str, number: int, order: str, max_pixels: int) -> npt.NDArray[Any]:
    """A frame of a dataset, its axes in another order.

    Args:
        axes: of the dataset: n number, c channel, h height, w width. order: of the result, without n.

    Raises:
        BadRecord: ``map_too_large``, ``hdf5_unreadable``.
    """
    sizes = dict(zip(axes, values.shape, strict=True))
    if sizes["h"] * sizes["w"] > max_pixels or sizes.get("c", 3) not in (1, 3):
        raise BadRecord("map_too_large", f"frames of {list(values.shape)}; at most {max_pixels} pixels, 3 channels")
    try:
        frame = values[tuple(number if axis == "n" else slice(None) for axis in axes)]
    except (OSError, RuntimeError) as fault:
        raise BadRecord("hdf5_unreadable", str(fault).partition("\n")[0]) from None
    left = [axis for axis in axes if axis != "n"]
    return np.ascontiguousarray(np.transpose(frame, [left.index(axis) for axis in order]))
