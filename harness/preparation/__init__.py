"""What is found out before anything is measured: the machine, each workload, whether it fits, what has to be trained.

Bad input ends here. May import bench and all packages before it, but nothing of heats and ab.
"""
