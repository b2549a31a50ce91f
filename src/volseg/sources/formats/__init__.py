"""Readers of one format each, and what they share."""
