"""Versions on the file system that all Lambdas share, and which state is served.

Jobs write here, handlers only read.
"""
