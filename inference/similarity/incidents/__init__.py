"""The incident state, `incident_cls.pt`: its file, its contents, and the ranking of its incidents.

Nothing here knows about texts or the model.
"""
