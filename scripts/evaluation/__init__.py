"""Measures how good the answers of a model and a state are: the parts of `evaluate.py`.

Texts come from `texts`, the state from `states`, and the figures from `figures`. Printing doesn't belong here.
"""
