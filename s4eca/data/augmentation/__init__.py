"""Augmentation of training samples that leaves the expression true, or rewrites it."""
