"""Reads AIID's data, from snapshots and tables, into incidents with their texts.

No model runs here.
"""
