"""What work an arm did: its certificate, the code that ran, its scores, and whether two arms did the same work.

Does not deal with time. May import bench and telemetry.
"""
