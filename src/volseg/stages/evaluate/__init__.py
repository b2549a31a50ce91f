"""Evaluate: compare the objects of a volume with the truth."""
