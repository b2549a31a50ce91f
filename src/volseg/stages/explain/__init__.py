"""Explain: why a network finds what it finds in a region, as layers beside the probabilities."""
