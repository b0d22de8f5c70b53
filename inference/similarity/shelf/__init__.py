"""The shelf: versions of states and models on the file system that all Lambdas share, and the choice of the state.

Jobs write to the shelf. Handlers only read.
"""
