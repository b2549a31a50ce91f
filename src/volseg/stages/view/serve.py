"""Serve a scene to neuroglancer, which comes with its Python package, on this machine only."""

from __future__ import annotations

import json
import math
from typing import Any

import neuroglancer
import numpy as np
import tornado.web
from neuroglancer import _neuroglancer as meshing
from neuroglancer import downsample_scales, server
from neuroglancer.chunks import encode_npz
from neuroglancer.local_volume import InvalidObjectIdForMesh

from volseg.errors import ParameterError, VolsegError
from volseg.stages.view.plan import Objects, Scene
from volseg.stages.view.pyramids import Pyramid
from volseg.stages.view.state import MOST_LISTED, compose_properties, compose_state
from volseg.types import Roi, VoxelSize, Zyx

LARGEST_MESH = 1 << 22
"""Voxels of the box of which a mesh is made."""
ADDRESS = "127.0.0.1"


class LayerVolume(neuroglancer.LocalVolume):
    """A layer of which neuroglancer asks for boxes, at any scale, and for meshes of objects."""

    def __init__(
        self, pyramid: Pyramid, voxel_size: VoxelSize | None, objects: Objects | None
    ) -> None:
        size, unit = voxel_size or (1.0, 1.0, 1.0), "" if voxel_size is None else "nm"
        scales = downsample_scales.compute_near_isotropic_downsampling_scales(
            np.array(pyramid.shape), np.array(size), [0, 1, 2], max_downsampling=math.inf
        )
        super().__init__(
            pyramid,
            neuroglancer.CoordinateSpace(names=["z", "y", "x"], units=[unit] * 3, scales=size),
            volume_type="segmentation" if pyramid.labels else "image",
            voxel_offset=pyramid.corner,
            max_downsampling=pyramid.reach([_zyx(s) for s in scales]),
        )
        self.pyramid, self.objects = pyramid, objects

    def get_encoded_subvolume(
        self, data_format: str, start: Any, end: Any, scale_key: str
    ) -> tuple[bytes, str]:
        """Read a box; neuroglancer answers ValueError with a status, and no traceback."""
        if data_format != "npz":
            raise ValueError(f"data are sent as npz, {data_format} was asked for")
        try:
            factor = _zyx(int(n) for n in scale_key.split(","))
            values = self.pyramid.read(factor, start.tolist(), end.tolist())
        except VolsegError as error:
            raise ValueError(str(error)) from error
        return encode_npz(values), "application/octet-stream"

    def get_object_mesh(self, object_id: int) -> bytes:
        """Make the mesh of an object, from a level at which its box is small."""
        row = None if self.objects is None else self.objects.row_of(object_id)
        if self.objects is None or row is None:
            raise InvalidObjectIdForMesh
        mesh = self._mesh(object_id, self.objects.box_at(row))
        if mesh is None:
            raise InvalidObjectIdForMesh
        return mesh

    def _mesh(self, label: int, box: Roi) -> bytes | None:
        for _, factor in self.pyramid.levels:
            start = [s.start // f for s, f in zip(box, factor, strict=True)]
            stop = [-(-s.stop // f) for s, f in zip(box, factor, strict=True)]
            if math.prod(np.subtract(stop, start)) <= LARGEST_MESH:
                break
        else:
            return None
        try:
            values = self.pyramid.read(factor, start, stop)
        except VolsegError as error:
            raise ValueError(str(error)) from error
        found = np.pad((values == label).astype(np.uint8), 1)
        generator = meshing.OnDemandObjectMeshGenerator(
            found.transpose(),
            np.multiply(self.dimensions.scales, factor),
            np.subtract(start, 0.5),  # less the padding, and half a voxel to its corner
            max_quadrics_error=-1.0,
        )
        mesh: bytes | None = generator.get_mesh(1)
        return mesh


def _zyx(values: Any) -> Zyx:
    try:
        z, y, x = (int(v) for v in values)
    except ValueError:
        raise ParameterError("a scale is three whole numbers") from None
    return z, y, x


class Table(tornado.web.RequestHandler):
    """Sends the table of objects."""

    def initialize(self, table: str) -> None:
        """Take the table, in JSON."""
        self.table = table

    def get(self) -> None:
        """Send it."""
        self.set_header("Content-type", "application/json")
        self.finish(self.table)


class Served:
    """A scene that is served until it is stopped.

    Attributes
    ----------
    url : of the viewer.
    scene : what it shows.
    state : of the viewer, as it began.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        server.set_server_bind_address(ADDRESS)
        # the browser is never to ask for credentials of this user's
        self._viewer = neuroglancer.Viewer(allow_credentials=False)
        self.url: str = self._viewer.get_viewer_url()
        volumes: dict[str, Any] = {
            name: [{"url": LayerVolume(p, scene.voxel_size, self._objects_of(name))}]
            for name, p in scene.layers.items()
        }
        if scene.objects is not None and len(scene.objects.columns["label"]) <= MOST_LISTED:
            volumes["objects"].append({"url": self._serve_table(scene.objects)})
        self._viewer.set_state(neuroglancer.ViewerState(compose_state(scene, volumes)))
        self.state: dict[str, Any] = self._viewer.state.to_json()

    def _objects_of(self, layer: str) -> Objects | None:
        return self.scene.objects if layer == "objects" else None

    def _serve_table(self, objects: Objects) -> str:
        table = json.dumps(compose_properties(objects))
        # the token of the viewer, which no other user of this machine knows, is in the address
        place = f"/volseg/{self._viewer.token}/objects"
        server.global_server.app.add_handlers(".*", [(f"{place}/info", Table, {"table": table})])
        return f"precomputed://{server.get_server_url()}{place}"

    def stop(self) -> None:
        """Stop the server."""
        server.stop()
