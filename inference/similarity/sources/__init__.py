"""Reads AIID's data, snapshots and tables, into incidents with their texts.

Nothing here runs a model.
"""
