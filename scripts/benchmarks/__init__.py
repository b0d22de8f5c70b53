"""The parts of `benchmark.py`: models and texts to measure with, backends, and a process for each backend.

Only that command uses them.
"""
