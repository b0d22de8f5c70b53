"""The parts of `build_state.py`.

Nothing else uses them.
"""
