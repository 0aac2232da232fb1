"""Charts as `<svg>` elements, in the style of the page that they stand in.

May import wording.
"""
