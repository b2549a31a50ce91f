"""What training is made of, as pure functions: losses, augmentation, sampling, centerlines."""
