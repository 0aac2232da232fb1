"""How arms live: the fork server that starts them, the channel that commands them, and what runs inside them.

May import bench, telemetry, evidence and timing. A fork server's task may lie in any package: it is given by name.
"""
