"""The command line: one file a command, and what several of them share. It alone sees all four packages.

What a command's file imports at its top is imported for every command's help: torch, pandas and their like come in the
functions that need them. Runs and gates are carried out by bench.api.
"""
