"""Serve a scene to neuroglancer, which comes with its Python package, on this machine only."""

from __future__ import annotations

import html
import json
import math
from pathlib import Path
from typing import Any

import neuroglancer
import numpy as np
import tornado.web
from neuroglancer import _neuroglancer as meshing
from neuroglancer import downsample_scales, server
from neuroglancer.chunks import encode_npz
from neuroglancer.local_volume import InvalidObjectIdForMesh

from volseg.errors import ParameterError, VolsegError
from volseg.geometry.grid import coarsen
from volseg.measures.object_table import box_of_row
from volseg.stages.view.plan import Objects, Scene, centre_on
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
        mesh = self._mesh(object_id, box_of_row(self.objects.columns, row))
        if mesh is None:
            raise InvalidObjectIdForMesh
        return mesh

    def _mesh(self, label: int, box: Roi) -> bytes | None:
        for _, factor in self.pyramid.levels:
            start, stop = zip(*((s.start, s.stop) for s in coarsen(box, factor)), strict=True)
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


class Report(tornado.web.RequestHandler):
    """Sends a report, whose links to objects then lead into the viewer."""

    def initialize(self, page: Path) -> None:
        """Take the file."""
        self.page = page

    def get(self) -> None:
        """Send it as it is now."""
        try:
            self.finish(self.page.read_bytes())
        except OSError as error:
            self.send_error(404, reason=error.strerror)


class Jump(tornado.web.RequestHandler):
    """Moves the viewer to an object, and leads to it."""

    def initialize(self, served: Served) -> None:
        """Take what is served."""
        self.served = served

    def get(self, label: str) -> None:
        """Move it, if the object is one of this volume."""
        try:
            of, name = (self.get_query_argument(key, "") for key in ("of", "name"))
            self.served.look_at(of, int(label), name)
        except VolsegError as error:
            self.set_status(404)
            self.finish(html.escape(str(error)))
            return
        self.redirect(self.served.url)


class Served:
    """A scene that is served until it is stopped.

    Attributes
    ----------
    report : address of the report whose links lead into the viewer; None if none is served.
    """

    def __init__(self, scene: Scene, report: Path | None = None) -> None:
        self.scene = scene
        server.set_server_bind_address(ADDRESS)
        # the browser is never to ask for credentials of this user's
        self._viewer = neuroglancer.Viewer(allow_credentials=False)
        self.url: str = self._viewer.get_viewer_url()
        volumes: dict[str, Any] = {
            name: [{"url": LayerVolume(p, scene.voxel_size, scene.tables.get(name))}]
            for name, p in scene.layers.items()
        }
        for number, (name, table) in enumerate(scene.tables.items()):
            if len(table.columns["label"]) <= MOST_LISTED:
                volumes[name].append({"url": self._serve_table(table, f"objects{number or ''}")})
        self._volumes = volumes
        self._viewer.set_state(neuroglancer.ViewerState(compose_state(scene, volumes)))
        self.state: dict[str, Any] = self._viewer.state.to_json()
        self.report: str | None = None
        if report is not None:
            self._add("report", Report, page=report)
            self._add(r"at/(\d+)", Jump, served=self)
            self.report = f"{server.get_server_url()}{self._place}report"

    def _serve_table(self, objects: Objects, place: str) -> str:
        self._add(f"{place}/info", Table, table=json.dumps(compose_properties(objects)))
        return f"precomputed://{server.get_server_url()}{self._place}{place}"

    @property
    def _place(self) -> str:
        """The token of the viewer, which no other user of this machine knows, is in addresses."""
        return f"/volseg/{self._viewer.token}/"

    def _add(self, name: str, handler: Any, **given: Any) -> None:
        server.global_server.app.add_handlers(".*", [(self._place + name, handler, given)])

    def look_at(self, volume: str, label: int, name: str = "") -> None:
        """Move the viewer to an object of a result, by default the first."""
        own = self.scene.path
        if volume != str(own.resolve()):
            raise ParameterError(f"{own} is shown here; show {volume} to see its objects")
        if name and name not in self.scene.names:
            raise ParameterError(f"{own} is shown without {name}; give --name {name} as well")
        scene = centre_on(self.scene, label, name)
        self._viewer.set_state(neuroglancer.ViewerState(compose_state(scene, self._volumes)))

    def stop(self) -> None:
        """Stop the server."""
        server.stop()
