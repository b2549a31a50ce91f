"""Predict: raw to probabilities."""
