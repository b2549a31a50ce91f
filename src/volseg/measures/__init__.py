"""Measurements of objects: size, surface, shape, tables. Pure functions over arrays."""
