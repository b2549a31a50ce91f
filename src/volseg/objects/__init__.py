"""Objects: runs, components, joining, holes, splitting. Pure functions over arrays."""
