"""Info: what a volume holds."""
