"""Preview: try models and scales on a few places of a volume."""
