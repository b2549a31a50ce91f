"""Volumes and results for other programs, a file per form."""
