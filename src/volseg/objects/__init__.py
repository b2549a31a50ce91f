"""What an object is: runs, components, joining, holes, splitting. Pure functions over arrays."""
