"""What the machine is and does, seen from outside the arms: memory, GPUs (NVML), control groups, disturbances.

Only reads, and touches no device. May import bench, harness.record and harness.message.
"""
