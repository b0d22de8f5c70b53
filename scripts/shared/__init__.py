"""Code that all commands use.

Code that only one command needs doesn't belong here.
"""
