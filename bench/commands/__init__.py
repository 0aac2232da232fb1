"""The larger commands. Like bench/__main__.py they see all four packages, and nothing imports them but it."""
