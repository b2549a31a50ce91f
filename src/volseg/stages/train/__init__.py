"""Train: a network from images and their labels."""
