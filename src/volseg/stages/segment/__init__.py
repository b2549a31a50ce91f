"""Segment: from raw to counted objects in one go, made of `predict` and `label`."""
