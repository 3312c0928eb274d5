"""From an expression to what is local and what is global in it."""
