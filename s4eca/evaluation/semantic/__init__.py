"""Scores and reports of semantic segmentation, where every pixel has a class."""
