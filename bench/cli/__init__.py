"""The command line: one file a command, and what several of them share. It alone sees all four packages.

What a command's file imports at its top is imported for every command's help: torch, pandas and their like come in the
functions that need them. What carries a large command out has a file of its own beside it (run: running and
calibrating; gate: gating).
"""
