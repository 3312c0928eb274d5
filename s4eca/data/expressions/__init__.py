"""Referring expressions made out of instance masks: what is read, what can be said, how it is split and written."""
