"""Searches over the keys of a training, by any number of workers that share one Optuna study."""
