"""Convert: a stack of images to an OME-Zarr volume."""
