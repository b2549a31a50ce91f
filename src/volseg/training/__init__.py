"""Building blocks of training: losses, augmentation, sampling, centerlines."""
