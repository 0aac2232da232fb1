"""Two sides against each other: two revisions, environments or techniques, each with a fork server of its own.

Stands on the core in heats. May import all other rooms.
"""
