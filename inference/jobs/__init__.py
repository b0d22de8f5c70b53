"""Lambdas without a route: each file here that defines `handler`. A deployment, an event or a schedule calls it.

The handlers are short; `similarity` does the work.
"""
