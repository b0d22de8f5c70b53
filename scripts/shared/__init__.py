"""What all commands share.

Nothing that only one command needs.
"""
