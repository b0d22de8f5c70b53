"""The parts of `benchmark.py`: models and texts to measure with, backends, and a process for each.

Nothing else uses them.
"""
