"""The stack, one concern a file: config, network, shelf (EFS), functions, API, priming.

`app.py` is the only one that reads the environment.
"""
