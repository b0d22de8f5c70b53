"""Parts of `scripts/publish_state.py`: the API that must answer, and the tables.

The rules for publishing and taking back are in `similarity.inbox`.
"""
