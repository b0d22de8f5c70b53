"""Parts of `similar.py`.

The command itself, tables of texts, their answers in batches, and what is printed or written.
"""
