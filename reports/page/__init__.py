"""The offline HTML pages: their templates, styles and script, with charts and data inside.

May import all other sub-packages of reports.
"""
