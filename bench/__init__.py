"""What is measured: workloads, techniques, plans, and the command line."""

__version__ = "0.1.0"
