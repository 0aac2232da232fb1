"""What is shown, as plain rows and sentences: every number becomes text here, and nowhere else.

Nothing here depends on an output format. May import bench, harness and results.
"""
