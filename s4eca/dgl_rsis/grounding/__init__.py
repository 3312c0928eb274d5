"""From image and words to activation maps."""
