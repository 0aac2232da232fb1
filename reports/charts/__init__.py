"""Charts as `<svg>` elements, in the style of the page that contains them.

May import wording.
"""
