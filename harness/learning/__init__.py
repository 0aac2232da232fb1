"""Complete trainings, for what a model learns: its loss on held-out samples, update by update.

Nothing here is timed. May import bench, evidence, processes and preparation.
"""
