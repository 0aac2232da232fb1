"""How arms live: the fork server that starts them, the channel they are commanded by, and what runs inside of them.

May import bench, telemetry, evidence and timing. A task that a fork server runs may lie in any room: it is named.
"""
