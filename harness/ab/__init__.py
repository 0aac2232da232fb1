"""Two sides against each other: two revisions, environments or techniques, each with its own fork server.

Builds on the core in heats. May import all other packages.
"""
