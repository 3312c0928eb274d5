"""Drawn scenes in the layout of a real dataset, to try a whole run without downloading anything."""
