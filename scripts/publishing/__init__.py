"""Parts of `scripts/publish_state.py`: the stack and its errors, and the API that must answer with a new state.

The rules for publishing and taking back are in `similarity.inbox`.
"""
