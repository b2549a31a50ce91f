"""Formats that are not read: by their first bytes, and how to convert them."""

from __future__ import annotations

FIJI = "open it in Fiji (File > Import > Bio-Formats) and save it as an OME-TIFF or TIFF stack"
UNPACK = "unpack it first"
CELLPOSE = (
    "a file of cellpose that only running code from it opens, which is not done: save the masks as "
    "TIFF or PNG, with File > Save masks, or with --save_tif or --save_png"
)
FOREIGN = (
    (0, b"ZISRAWFILE", "a CZI file of Zeiss", FIJI),
    (0, b"\xda\xce\xbe\x0a", "an ND2 file of Nikon", FIJI),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 file", "convert it to TIFF"),
    (0, b"\xffO\xffQ", "a JPEG 2000 file", "convert it to TIFF"),
    (0, b"\xff\x0a", "a JPEG XL file", "convert it to TIFF or PNG"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL file", "convert it to TIFF or PNG"),
    (0, b"\x70\0\0\0", "a LIF file of Leica", FIJI),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an OLE file, such as OIB, ZVI or TXM", FIJI),
    (0, b"II\x97\x01", "a SER file of TIA", FIJI),
    (0, b"# AmiraMesh", "an Amira file", "export it from Amira or Avizo as TIFF, MRC or NRRD"),
    (0, b"# Avizo", "an Avizo file", "export it from Amira or Avizo as TIFF, MRC or NRRD"),
    (0, b"# vtk DataFile", "a VTK file", "save it as NRRD or NIfTI, for example in ParaView"),
    (0, b"<VTKFile", "a VTK file", "save it as NRRD or NIfTI, for example in ParaView"),
    (0, b"ObjectType", "a MetaImage header", "save it as NRRD or NIfTI, for example with ITK"),
    (0, b"\x93NUMPY", "a NumPy file", "save the array with tifffile.imwrite or zarr.save"),
    (0, b"MATLAB 5.0", "a MATLAB file", "save it with -v7.3, which is HDF5, or as a TIFF stack"),
    (128, b"DICM", "a DICOM file", "convert it to NIfTI, for example with dcm2niix"),
    (0, b"SIMPLE  =", "a FITS file", FIJI),
    (0, b"BM", "a BMP picture", "convert it to TIFF or PNG"),
    (0, b"GIF8", "a GIF picture", "convert it to TIFF or PNG"),
    (0, b"%PDF", "a PDF document", "export the pictures in it as TIFF"),
    (
        0,
        b"PK\x03\x04",
        "a zip file",
        "unpack it first; a Zarr image is read in a sound file called .zip, at its top",
    ),
    (0, b"\x1f\x8b", "a file that gzip compressed", UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (0, b"Rar!", "a RAR archive", UNPACK),
    (0, b"BZh", "a file that bzip2 compressed", UNPACK),
    (0, b"\xfd7zXZ\0", "a file that xz compressed", UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a file that zstd compressed", UNPACK),
    (257, b"ustar", "a tar archive", UNPACK),
    (0, b"<?xml", "an XML file", "name the file with the voxels, which it may describe"),
)
"""Place and value of bytes, what it is, and what to do."""


def name_foreign(head: bytes, name: str = "") -> str | None:
    """Name a format that is not read, and say how to convert it; None if it is not known.

    Parameters
    ----------
    head : first bytes of the file
    name : of the file

    Examples
    --------
    >>> name_foreign(b"GIF89a")
    'a GIF picture, which is not read: convert it to TIFF or PNG'
    """
    if name.endswith("_seg.npy"):
        return CELLPOSE
    for at, start, kind, remedy in FOREIGN:
        if head[at : at + len(start)] == start:
            return f"{kind}, which is not read: {remedy}"
    return None
