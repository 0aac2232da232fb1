"""What work an arm did: its certificate, the code that ran, its scores, and whether two arms did the same work.

Knows nothing of time. May import bench and telemetry.
"""
