"""Measures how good the answers of a model and a state are: the parts of `evaluate.py`.

Tasks choose texts (`texts`, `beginnings`) and a state (`states`, `snapshots`). `asking` asks them, `figures` and
`results` compute figures, `report` and `plots` show them.
"""
