"""View: a volume and its results in neuroglancer, as layers in physical units."""
