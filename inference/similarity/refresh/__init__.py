"""Texts become vectors, and vectors become the incident state.

The data come as `similarity.sources` reads them. Nothing here knows how they are read or where the state goes.
"""
