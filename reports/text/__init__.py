"""For the terminal and for Markdown: tables, the live view, a gate's verdict.

May import wording.
"""
