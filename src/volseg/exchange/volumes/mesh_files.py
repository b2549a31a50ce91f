"""Files of meshes: GLB, PLY and STL, written object by object, whatever their number."""

from __future__ import annotations

import json
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from volseg import __version__
from volseg.errors import StorageError
from volseg.storage.files import drafting
from volseg.types import Doubles

COLORS = ("e6194b", "3cb44b", "ffe119", "4363d8", "f58231", "911eb4", "46f0f0", "f032e6", "bcf60c")
LARGEST = (1 << 32) - 1
"""Bytes that a GLB file, or one of its parts, can hold; and the highest label of PLY."""
FLOAT, UINT, VERTICES, FACES = 5126, 5125, 34962, 34963
"""Numbers by which glTF names types and uses of buffers."""


@dataclass(frozen=True)
class Mesh:
    """The surface of an object.

    Attributes
    ----------
    label : of the object.
    vertices : float64, shape (n, 3), (x, y, z) from ``corner`` on, in nm or voxels.
    faces : int64, shape (m, 3), counter-clockwise from outside.
    corner : (x, y, z) in nm or voxels.
    """

    label: int
    vertices: Doubles
    faces: NDArray[np.int64]
    corner: Doubles

    def to_bytes(self) -> bytes:
        """Write it so that `from_bytes` reads it."""
        head = np.array([self.label, len(self.vertices), len(self.faces)], "<u8").tobytes()
        parts = self.corner, self.vertices, self.faces
        return head + b"".join(np.ascontiguousarray(part).tobytes() for part in parts)

    @classmethod
    def from_bytes(cls, content: bytes) -> Mesh:
        """Read what `to_bytes` wrote."""
        label, points, triangles = (int(n) for n in np.frombuffer(content, "<u8", 3))
        real = np.frombuffer(content, np.float64, 3 + 3 * points, 24)
        faces = np.frombuffer(content, np.int64, 3 * triangles, 24 + real.nbytes)
        return cls(label, real[3:].reshape(-1, 3), faces.reshape(-1, 3), real[:3])


@contextmanager
def _parts(path: Path, count: int) -> Iterator[tuple[BinaryIO, Sequence[BinaryIO]]]:
    """Open a file to write, and others for what stands further down in it."""
    with drafting(path, parents=False) as draft, draft.open("wb") as file, ExitStack() as opened:
        spools = [
            opened.enter_context(tempfile.TemporaryFile(dir=draft.parent)) for _ in range(count)
        ]
        yield file, spools
        for spool in spools:
            spool.seek(0)
            shutil.copyfileobj(spool, file)


def write_ply(path: Path, meshes: Iterator[Mesh], unit: str) -> None:
    """Write binary PLY; each vertex bears its object's label."""
    vertex = np.dtype([("place", "<f4", 3), ("label", "<u4")])
    face = np.dtype([("corners", "u1"), ("index", "<i4", 3)])
    vertices = faces = 0
    with _parts(path, 2) as (file, (upper, lower)):
        for mesh in meshes:
            points = np.empty(len(mesh.vertices), vertex)
            points["place"], points["label"] = mesh.vertices + mesh.corner, mesh.label
            triangles = np.empty(len(mesh.faces), face)
            triangles["corners"], triangles["index"] = 3, mesh.faces + vertices
            upper.write(points.tobytes())
            lower.write(triangles.tobytes())
            vertices, faces = vertices + len(points), faces + len(triangles)
        places = "".join(f"property float {axis}\n" for axis in "xyz")
        file.write(
            f"ply\nformat binary_little_endian 1.0\ncomment volseg {__version__}, in {unit}\n"
            f"element vertex {vertices}\n{places}property uint label\n"
            f"element face {faces}\nproperty list uchar int vertex_indices\nend_header\n".encode()
        )


def write_stl(path: Path, meshes: Iterator[Mesh], unit: str) -> None:
    """Write binary STL, which knows triangles alone."""
    triangle = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("none", "<u2")])
    count = 0
    with _parts(path, 1) as (file, (body,)):
        for mesh in meshes:
            corners = (mesh.vertices + mesh.corner)[mesh.faces]
            normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
            lengths = np.linalg.norm(normals, axis=1, keepdims=True)
            triangles = np.zeros(len(corners), triangle)
            triangles["normal"] = normals / np.where(lengths > 0, lengths, 1)
            triangles["corners"] = corners
            body.write(triangles.tobytes())
            count += len(triangles)
        file.write(f"volseg {__version__}, in {unit}".encode().ljust(80) + struct.pack("<I", count))


def write_glb(path: Path, meshes: Iterator[Mesh], unit: str) -> None:
    """Write GLB: a node for each object, named by its label, at its own place.

    Raises
    ------
    StorageError
        If it cannot be written, or is larger than such a file can be.
    """
    scene = _Scene([], [], [], [])
    with _parts(path, 1) as (file, (body,)):
        for mesh in meshes:
            points = mesh.vertices.astype("<f4")
            indices = np.ascontiguousarray(mesh.faces, "<u4")
            scene.add(mesh, points, body.tell(), len(indices))
            body.write(points.tobytes())
            body.write(indices.tobytes())
        size = body.tell()
        content = json.dumps(scene.describe(size, unit)).encode()
        content += b" " * (-len(content) % 4)
        binary = struct.pack("<I4s", size, b"BIN\0") if size else b""
        total = 12 + 8 + len(content) + len(binary) + size
        if total > LARGEST:
            raise StorageError(
                f"{path} would have {total} bytes, and GLB holds {LARGEST}: give --overwrite and a "
                f"coarser --level or some --object, or write PLY"
            )
        file.write(struct.pack("<4sII", b"glTF", 2, total))
        file.write(struct.pack("<I4s", len(content), b"JSON") + content + binary)


@dataclass(frozen=True)
class _Scene:
    """Entries of glTF, of which each object adds some."""

    nodes: list[dict[str, Any]]
    meshes: list[dict[str, Any]]
    accessors: list[dict[str, Any]]
    views: list[dict[str, Any]]

    def add(self, mesh: Mesh, points: NDArray[np.float32], start: int, faces: int) -> None:
        """Add an object whose vertices, then indices, lie in the buffer from ``start`` on."""
        number = len(self.accessors)
        material = mesh.label % len(COLORS)
        attributes = {"attributes": {"POSITION": number}, "indices": number + 1}
        name, place = str(mesh.label), mesh.corner.tolist()
        self.nodes.append({"name": name, "mesh": len(self.meshes), "translation": place})
        self.meshes.append({"name": name, "primitives": [attributes | {"material": material}]})
        ends = {"min": points.min(axis=0).tolist(), "max": points.max(axis=0).tolist()}
        self.accessors.append(
            {"bufferView": number, "componentType": FLOAT, "count": len(points), "type": "VEC3"}
            | ends
        )
        self.accessors.append(
            {"bufferView": number + 1, "componentType": UINT, "count": 3 * faces, "type": "SCALAR"}
        )
        for length, begin, use in (
            (points.nbytes, start, VERTICES),
            (12 * faces, start + points.nbytes, FACES),
        ):
            self.views.append(
                {"buffer": 0, "byteOffset": begin, "byteLength": length, "target": use}
            )

    def describe(self, size: int, unit: str) -> dict[str, Any]:
        """Describe the whole file; glTF knows no empty lists."""
        asset = {"version": "2.0", "generator": f"volseg {__version__}", "extras": {"unit": unit}}
        colors = [[int(c[k : k + 2], 16) / 255 for k in (0, 2, 4)] + [1.0] for c in COLORS]
        found: Mapping[str, Any] = {
            "nodes": self.nodes,
            "meshes": self.meshes,
            "accessors": self.accessors,
            "bufferViews": self.views,
            "buffers": [{"byteLength": size}] if size else [],
        }
        looks = [
            {"pbrMetallicRoughness": {"baseColorFactor": c, "metallicFactor": 0.0}} for c in colors
        ]
        scene = {"nodes": list(range(len(self.nodes)))} if self.nodes else {}
        return {
            "asset": asset,
            "scene": 0,
            "scenes": [scene],
            "materials": looks,
            **{key: entries for key, entries in found.items() if entries},
        }


WRITERS: Mapping[str, Callable[[Path, Iterator[Mesh], str], None]] = {
    ".glb": write_glb,
    ".ply": write_ply,
    ".stl": write_stl,
}
