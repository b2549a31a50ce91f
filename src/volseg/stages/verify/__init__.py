"""Verify: check what a volume holds."""
