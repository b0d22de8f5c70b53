"""Turns a text into its CLS vector: tokens, a model's folder, and an engine for the arithmetic.

Nothing here knows about incidents.
"""
