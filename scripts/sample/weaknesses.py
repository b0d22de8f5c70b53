#!/usr/bin/env python3
"""Write the weaknesses of the Common Weakness Enumeration (CWE) as JSON lines: the table of docs/other-databases.md.

They come from the package cwe2, which has the CWE in the version 4.14. Install it first: pip install cwe2==3.0.0
A line is a text about a weakness: its description, its further description, or a vulnerability that was caused by it.
Of the vulnerabilities the first three count. Weaknesses that the CWE has given up are left out.

Example:
    python scripts/sample/weaknesses.py > weaknesses.jsonl
"""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from importlib.resources import files
from itertools import islice

DATABASE = "database_v49/cwec_v4.14.xml"
NAMESPACE = {"": "http://cwe.mitre.org/cwe-7"}
EXAMPLES = 3


def text_of(element: ET.Element | None) -> str:
    """All text in an element, on one line; "" without an element."""
    return " ".join("".join(element.itertext()).split()) if element is not None else ""


def lines() -> Iterator[dict[str, str | int]]:
    """A line for each text. Raises ModuleNotFoundError without cwe2."""
    content = files("cwe2").joinpath(DATABASE).read_bytes()
    database = ET.fromstring(content)  # noqa: S314  # a pinned package's own file
    for weakness in database.iterfind("*/Weakness", NAMESPACE):
        if weakness.get("Status") == "Deprecated":
            continue
        submitted = text_of(weakness.find("Content_History/Submission/Submission_Date", NAMESPACE))
        examples = islice(weakness.iterfind("*/Observed_Example/Description", NAMESPACE), EXAMPLES)
        texts = (weakness.find("Description", NAMESPACE), weakness.find("Extended_Description", NAMESPACE), *examples)
        for text in filter(None, map(text_of, texts)):
            yield {
                "number": int(weakness.attrib["ID"]),
                "name": weakness.attrib["Name"],
                "submitted": submitted,
                "text": text,
            }


def main() -> int:
    try:
        for line in lines():
            print(json.dumps(line))
    except ModuleNotFoundError:
        print("weaknesses: cwe2 isn't installed: pip install cwe2==3.0.0", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
