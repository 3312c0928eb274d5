"""From the evidence to a mask."""
