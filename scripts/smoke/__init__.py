"""The parts of `smoke_test.py`: a client of the API, which can sign its requests, and the checks.

`publish_state.py` asks the API with the same client.
"""
