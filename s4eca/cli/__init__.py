"""The `s4eca` command."""
