"""Find the recorded AI incidents most like a text: the library that handlers, jobs and scripts share.

Each folder is a room with one task. `service` puts them together for the handlers.
"""

__version__ = "1.0.0"
