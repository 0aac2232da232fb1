"""For other programs: JSON, CSV, JUnit, annotations of CI systems, pytest-benchmark's JSON.

May import wording and text.
"""
