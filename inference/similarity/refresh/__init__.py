"""Texts become vectors, and vectors become the incident state.

Nothing here knows where the data come from (`similarity.sources`) or where the state goes.
"""
