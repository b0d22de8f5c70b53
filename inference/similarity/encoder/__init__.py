"""A text becomes its CLS vector: tokens, a model's folder, and an engine that does the arithmetic.

Nothing here knows of incidents.
"""
