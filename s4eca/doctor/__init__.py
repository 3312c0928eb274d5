"""What a machine has, and what would fail on it and why: facts are gathered first, then judged by pure functions."""
