"""What a removal needs to know: the parts of a stack, its protection, its images and who else uses them.

The command itself is `deployment/destroy.py`.
"""
