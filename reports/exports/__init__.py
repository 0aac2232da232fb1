"""Runs for experiment trackers: a file each, with one function that writes the arms of a run into a folder.

May import formats.
"""
