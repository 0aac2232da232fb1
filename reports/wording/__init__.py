"""What is shown, as plain rows and sentences: every number becomes text here, and nowhere else.

No surface is known here. May import bench, harness and results.
"""
