"""A recipe as a script of plain PyTorch.

`code.py` holds what a technique declares about how it is written by hand, `model.py` and `data.py` write a workload's
model and data, and `recipe.py` puts everything into `bench/templates/recipe.py.jinja`. Imports nothing but the rest of
`bench`.
"""
