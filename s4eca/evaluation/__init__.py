"""Evaluation: protocols, the metric, reports and pictures."""
