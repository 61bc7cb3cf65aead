"""Triangles from legacy VTK files (`# vtk DataFile`, POLYDATA, ASCII or binary, versions up to 5.1)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from sacroleak.core.errors import InputError

TYPES = {"float": ">f4", "double": ">f8", "int": ">i4", "long": ">i8", "unsigned_int": ">u4", "vtktypeint64": ">i8",
         "vtktypeint32": ">i4", "vtkidtype": ">i8"}
"""VTK's names for numbers; its binary files are big-endian."""

Array = npt.NDArray[np.float64]
Faces = npt.NDArray[np.int64]


def read_vtk(path: Path) -> tuple[Array, Faces]:
    """Points (n, 3) as the file has them, and triangles (m, 3); polygons are cut into fans. Raises InputError."""
    reader = _Reader(path.read_bytes(), path.name)
    reader.header()
    points: Array | None = None
    faces: Faces | None = None
    while (line := reader.line()) is not None:
        words = line.split()
        keyword = words[0].upper()
        if keyword == "POINTS":
            points = reader.numbers(3 * int(words[1]), words[2]).astype(np.float64).reshape(-1, 3)
        elif keyword == "POLYGONS":
            faces = reader.polygons(int(words[1]), int(words[2]))
        elif keyword in ("POINT_DATA", "CELL_DATA"):
            break
        elif keyword in ("VERTICES", "LINES", "TRIANGLE_STRIPS"):
            raise InputError(f"{path.name}: holds {keyword.lower()}, wanted polygons alone; write it as triangles")
    if points is None or faces is None or len(faces) == 0:
        raise InputError(f"{path.name}: no points or no polygons in it")
    if faces.min() < 0 or faces.max() >= len(points):
        raise InputError(f"{path.name}: a triangle names point {int(faces.max())} of {len(points)}")
    return points, faces


class _Reader:
    """A place in the file's bytes that moves on."""

    def __init__(self, data: bytes, name: str) -> None:
        self._data, self._name, self._at, self._binary, self._modern = data, name, 0, False, False

    def line(self) -> str | None:
        """The next line that is not empty, or None at the end."""
        while self._at < len(self._data):
            end = self._data.find(b"\n", self._at)
            end = len(self._data) if end < 0 else end
            text = self._data[self._at:end].decode("latin-1").strip()
            self._at = end + 1
            if text:
                return text
        return None

    def header(self) -> None:
        """Version, title, encoding, kind."""
        first = self.line() or ""
        if not first.startswith("# vtk DataFile"):
            raise InputError(f"{self._name}: not a legacy VTK file; an XML one (.vtp) must be converted")
        self._modern = first.split()[-1] >= "5"
        end = self._data.find(b"\n", self._at)
        self._at = end + 1  # the title, which may be empty
        self._binary = (self.line() or "").upper() == "BINARY"
        kind = (self.line() or "").upper().split()
        if kind != ["DATASET", "POLYDATA"]:
            raise InputError(f"{self._name}: holds {' '.join(kind[1:]).lower() or 'nothing'}, wanted POLYDATA")

    def numbers(self, count: int, kind: str) -> npt.NDArray[np.generic]:
        """The next `count` numbers."""
        dtype = TYPES.get(kind.lower())
        if dtype is None:
            raise InputError(f"{self._name}: numbers of type {kind}, wanted float, double, int or vtktypeint64")
        if self._binary:
            size = count * np.dtype(dtype).itemsize
            part = self._data[self._at:self._at + size]
            self._at += size
            values: npt.NDArray[np.generic] = np.frombuffer(part[:len(part) - len(part) % np.dtype(dtype).itemsize],
                                                            dtype=dtype)
        else:
            values = self._text(count)
        if len(values) != count:
            raise InputError(f"{self._name}: cut short, {len(values)} of {count} numbers")
        return values

    def _text(self, count: int) -> Array:
        found: list[str] = []
        while len(found) < count and (line := self.line()) is not None:
            found += line.split()
        try:
            return np.array(found[:count], dtype=np.float64)
        except ValueError:
            raise InputError(f"{self._name}: something that is no number among its numbers") from None

    def polygons(self, first: int, second: int) -> Faces:
        """Triangles of a POLYGONS section: `first second` is (count, size), or since 5.1 (offsets, connectivity)."""
        if self._modern:
            arrays = []
            for count in (first, second):
                words = (self.line() or "").split()
                arrays.append(self.numbers(count, words[-1] if len(words) == 2 else "").astype(np.int64))
            corners = np.split(arrays[1], arrays[0][1:-1])
        else:
            flat = self.numbers(second, "int").astype(np.int64)
            corners, at = [], 0
            for _ in range(first):
                size = int(flat[at]) if at < len(flat) else 0
                corners.append(flat[at + 1:at + 1 + size])
                at += 1 + size
        fans = [(c[0], c[n], c[n + 1]) for c in corners for n in range(1, len(c) - 1)]
        return np.array(fans, dtype=np.int64).reshape(-1, 3)
