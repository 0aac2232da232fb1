"""The steps of one process and their times: the training step, its data, the clock, how long a turn is.

Knows nothing of other processes. May import bench, telemetry and evidence.
"""
