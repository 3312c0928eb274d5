"""From an image to class-agnostic masks."""
