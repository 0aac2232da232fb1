"""What training will take, found out before it runs and without touching the device.

Compositions are built and take updates on tensors without data. May import bench and all rooms before it; preparation,
heats and ab ask it.
"""
