"""Predicts what training will take, before it runs and without touching the device.

Compositions are built and take updates on tensors without data. May import bench and all packages before it;
preparation, heats and ab use it.
"""
