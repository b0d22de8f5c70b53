"""Reads AIID's data, from snapshots and tables, and other databases into incidents with their texts.

No model runs here.
"""
