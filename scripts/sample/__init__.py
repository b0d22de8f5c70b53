"""Data to try the commands with: a snapshot in the layout of AIID's, and the program that makes another table.

The commands read it. Nothing is computed here.
"""
