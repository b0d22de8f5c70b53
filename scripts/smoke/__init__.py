"""The parts of `smoke_test.py`: a client of the API, and the checks.

Nothing else uses them.
"""
