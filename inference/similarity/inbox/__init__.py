"""The inbox: the S3 bucket of a stack, to which states are published, and the notes about them.

Jobs and scripts use it. Handlers never do: they have no permission for S3.
"""
