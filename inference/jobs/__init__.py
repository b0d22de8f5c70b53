"""Lambdas without a route: each file that defines `handler` is one. A deployment, an event or a schedule calls it.

The work itself is done in `similarity`.
"""
