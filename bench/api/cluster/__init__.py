"""Sweeps over the machines of a cluster: heats are tasks, and engines that exist place them.

`heats.py` says what a task is, and each other file gives tasks to one engine.
"""
