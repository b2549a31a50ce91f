"""Readers of stacks and labels from microscopes and annotators."""
