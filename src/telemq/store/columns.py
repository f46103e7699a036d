"""Arrays of numbers to and from Postgres as numpy's, without an object a number.

A hundred thousand numbers are converted in a millisecond so, and in a hundred as lists. As
Postgres sends an array in binary::

    dimensions  flags  type   length  first   then each element
    int32       int32  int32  int32   int32   its length in bytes (int32), its bytes

An empty array has no dimension and ends after its type. No element is ever NULL here.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg.abc import AdaptContext, Buffer, PyFormat
from psycopg.adapt import Dumper, Loader
from psycopg.pq import Format

__all__ = ["NEVER_US", "register"]

#: A time before all others, for `-infinity`.
NEVER_US = int(np.iinfo(np.int64).min)

#: Postgres counts microseconds from 2000-01-01 UTC.
_EPOCH_US = 946_684_800_000_000
_HEADER = struct.Struct(">iiiii")
_EMPTY = struct.Struct(">iii")
#: By numpy's type: of the array, of its elements, and how these are written.
_TYPES: dict[np.dtype[Any], tuple[int, int, str]] = {
    np.dtype(np.int32): (1007, 23, ">i4"),
    np.dtype(np.float64): (1022, 701, ">f8"),
    np.dtype("M8[us]"): (1185, 1184, ">i8"),
}


def register(conn: psycopg.AsyncConnection[Any]) -> None:
    """Let a connection take and give arrays as numpy's.

    It takes int32, float64 and datetime64[us], in UTC, as ``%b``; and gives ``integer[]``,
    ``double precision[]`` and ``timestamptz[]`` as the same in binary results.
    """
    conn.adapters.register_dumper(np.ndarray, _ArrayDumper)
    for oid, _, _ in _TYPES.values():
        conn.adapters.register_loader(oid, _ArrayLoader)


class _ArrayDumper(Dumper):
    format = Format.BINARY

    def __init__(self, cls: type, context: AdaptContext | None = None) -> None:
        super().__init__(cls, context)
        self._context = context

    def get_key(self, obj: npt.NDArray[Any], format: PyFormat) -> Any:  # noqa: ARG002
        return (self.cls, obj.dtype)

    def upgrade(self, obj: npt.NDArray[Any], format: PyFormat) -> Dumper:  # noqa: ARG002
        dumper = _ArrayDumper(self.cls, self._context)
        dumper.oid = _TYPES[obj.dtype][0]
        return dumper

    def dump(self, obj: npt.NDArray[Any]) -> Buffer:
        _, element, written = _TYPES[obj.dtype]
        if not len(obj):
            return _EMPTY.pack(0, 0, element)
        items = np.empty(len(obj), [("bytes", ">i4"), ("it", written)])
        items["bytes"] = items.dtype["it"].itemsize
        items["it"] = _to_postgres(obj) if obj.dtype.kind == "M" else obj
        return _HEADER.pack(1, 0, element, len(obj), 1) + items.tobytes()


class _ArrayLoader(Loader):
    format = Format.BINARY

    def load(self, data: Buffer) -> npt.NDArray[Any]:
        _, _, element = _EMPTY.unpack_from(data)
        dtype, written = next((d, w) for d, (_, e, w) in _TYPES.items() if e == element)
        if len(data) <= _HEADER.size:
            return np.empty(0, dtype)
        items = np.frombuffer(data, [("bytes", ">i4"), ("it", written)], offset=_HEADER.size)["it"]
        if dtype.kind == "M":
            return _from_postgres(items)
        given: npt.NDArray[Any] = items.astype(dtype)
        return given


def _to_postgres(times: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    us = times.view(np.int64)
    return np.where(us == NEVER_US, NEVER_US, us - _EPOCH_US)


def _from_postgres(us: npt.NDArray[Any]) -> npt.NDArray[Any]:
    us = us.astype(np.int64)
    return np.where(us == NEVER_US, NEVER_US, us + _EPOCH_US).view("M8[us]")
