"""A recipe as a script of plain PyTorch.

`code.py` is what a technique declares of how it is written there, `model.py` and `data.py` write a workload's, and
`recipe.py` puts all of it into `bench/templates/recipe.py.jinja`. Imports nothing but the rest of `bench`.
"""
