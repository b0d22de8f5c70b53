"""The collection that a state is about: its name, and the pages of its incidents."""

from __future__ import annotations

from urllib.parse import urlsplit

# What states of earlier versions are about, and states of the AI Incident Database.
DEFAULT_COLLECTION = "AI Incident Database"
DEFAULT_RECORD_URL = "https://incidentdatabase.ai/cite/{id}"
# The licence of the AI Incident Database. A state that names no licence may be of another database.
DEFAULT_LICENCE = "CC BY-SA 4.0"

# Where a template has the id.
ID = "{id}"
# Longer URLs don't work everywhere, and a longer name is no name.
MOST_URL_CHARS = 2000
MOST_NAME_CHARS = 100

# Neither spaces nor these stand in a URL: programs write them as %20 and so on.
_NEVER = ' <>"\\^`{|}'
_RULE = f"must be an http or https URL of at most {MOST_URL_CHARS:,} characters, without spaces and {_NEVER.strip()}"


def require_url(url: str) -> None:
    """Raises ValueError, whose message goes behind a name, if `url` isn't one of a web page.

    Answers carry it, and pages make links of it. So other schemes, such as javascript, are refused.
    """
    try:
        parts = urlsplit(url)
        is_page = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of a port too large, or of brackets
        is_page = False
    if not is_page or len(url) > MOST_URL_CHARS or not url.isprintable() or set(url) & set(_NEVER):
        raise ValueError(_RULE)


def require_template(template: str) -> None:
    """Raises ValueError as `require_url`, also if the template has no {id}. It may be "": no pages are known."""
    if template and ID not in template:
        raise ValueError(f"must have {ID} where the id of an incident belongs")
    if template:
        require_url(template.replace(ID, "1"))


def require_name(name: str) -> None:
    """Raises ValueError, whose message goes behind a name, if `name` can't be a title."""
    if not name.strip() or len(name) > MOST_NAME_CHARS or not name.isprintable():
        raise ValueError(f"must be a name of 1 to {MOST_NAME_CHARS} characters on one line")


def licence_of(collection: str, licence: str) -> str:
    """The licence of a collection's data: the one that its state names, else that of AIID; "" if it isn't known."""
    return licence or (DEFAULT_LICENCE if collection == DEFAULT_COLLECTION else "")


def url_of(template: str, incident_id: int) -> str | None:
    """The page of an incident; None without a template."""
    return template.replace(ID, str(incident_id)) if template else None
