"""What an object measures: size, surface, shape, tables. Pure functions over arrays."""
