"""The parts of `build_state.py`.

Only that command uses them.
"""
