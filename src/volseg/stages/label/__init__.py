"""Label: probabilities to numbered objects."""
