"""The page /explore: one HTML file, and what is written into it.

Matches come from the API, which the page calls. The map's points come from the state.
"""
