"""AIID's data, read into incidents with their texts: snapshots and tables.

Nothing here runs a model.
"""
