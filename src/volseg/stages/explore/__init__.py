"""Explore: look at a volume before anything else."""
