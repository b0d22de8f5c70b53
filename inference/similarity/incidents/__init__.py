"""The incident state, `incident_cls.pt`: its file, its contents, and the ranking of its incidents.

Nothing here knows about the model. Of a text, it knows only the words.
"""
