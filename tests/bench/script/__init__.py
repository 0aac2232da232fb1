"""Scripts of recipes."""
