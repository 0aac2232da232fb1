"""Runs for experiment trackers: one module each, with a function that writes the arms of a run into a folder.

May import formats.
"""
