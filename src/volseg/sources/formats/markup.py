"""XML that describes voxels, as OME and BigDataViewer write it."""

from __future__ import annotations

from xml.etree import ElementTree as ET


def parse_xml(text: str) -> ET.Element | None:
    """Read XML; None where it is broken, or declares a document type.

    That could define entities that expand without bound, and no description of voxels has one.

    Examples
    --------
    >>> parse_xml("<OME/>").tag, parse_xml("<OME>"), parse_xml("<!DOCTYPE a [<!ENTITY b 'c'>]><a/>")
    ('OME', None, None)
    """
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        return None
    try:
        return ET.fromstring(text)
    except (ET.ParseError, ValueError):
        return None
