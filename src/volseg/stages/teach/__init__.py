"""Teach: marks on a result, minutes of training, and new weights."""
