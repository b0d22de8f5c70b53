"""Makes synthetic snapshots in AIID's layout: dumps, tables of its two writers, and files that mustn't be read.

`python tests/snapshots.py FOLDER` writes one of AIID's size: 1,400 incidents and 7,000 reports, each with a vector.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import hashlib
import io
import json
import lzma
import random
import sys
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bson
from unidecode import unidecode

Document = dict[str, Any]

FOLDER = "mongodump_full_snapshot"
NAME = "backup-20261123100000.tar.bz2"
# Nobody has reviewed these collections. They mustn't get into a state.
UNREVIEWED = ("submissions", "candidates", "quickadd")

_PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".tar": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".lzma": lambda content: lzma.compress(content, lzma.FORMAT_ALONE),
}


def form_hash(plain: str) -> str:
    """The `from_text_hash` that AIID's submission form stores."""
    return hashlib.sha1(unidecode(plain).encode()).hexdigest()


def job_hash(text: str) -> str:
    """The `from_text_hash` that AIID's daily job stored."""
    return hashlib.sha1(text.encode()).hexdigest()


def report(number: int, plain_text: str, **fields: Any) -> Document:
    """A report as in AIID's database. fields: replace the fields that are made up here."""
    return {
        "_id": bson.ObjectId(f"{number:024x}"),
        "report_number": bson.Int64(number),
        "title": f"Report {number}",
        "text": plain_text.replace("_", "\\_").replace("*", "\\*"),
        "plain_text": plain_text,
        "language": "en",
        "url": f"https://example.org/{number}",
        "tags": [],
        "is_incident_report": True,
        "date_modified": datetime(2026, 5, 1, tzinfo=UTC),
        **fields,
    }


def embedding(vector: Sequence[float], from_text_hash: str) -> Document:
    """The value of a report's field `embedding`."""
    return {"vector": [float(number) for number in vector], "from_text_hash": from_text_hash}


def incident(incident_id: int, reports: Sequence[int], **fields: Any) -> Document:
    return {
        "_id": bson.ObjectId(f"{incident_id + (1 << 60):024x}"),
        "incident_id": incident_id,
        "title": f"Incident {incident_id}",
        "date": "2026-04-30",
        "description": f"About incident {incident_id}.",
        "reports": list(reports),
        "editor_similar_incidents": [],
        "editor_dissimilar_incidents": [],
        "flagged_dissimilar_incidents": [],
        "nlp_similar_incidents": [{"incident_id": incident_id + 1, "similarity": 0.99}],
        **fields,
    }


def duplicate(merged: int, became: int) -> Document:
    return {
        "_id": bson.ObjectId(f"{merged + (1 << 61):024x}"),
        "duplicate_incident_number": merged,
        "true_incident_number": became,
    }


@dataclass
class Snapshot:
    """The content of AIID's database.

    translations: documents by language. changed: content of files, by their names in the folder, that replaces the
    content made here; None removes a file.
    """

    incidents: Sequence[Document]
    reports: Sequence[Document]
    duplicates: Sequence[Document] = ()
    translations: Mapping[str, Sequence[Document]] = field(default_factory=dict)
    changed: Mapping[str, bytes | None] = field(default_factory=dict)

    def files(self, *, dumps: bool = True, tables: bool = True) -> dict[str, bytes]:
        """Name in the folder -> content of the file."""
        files: dict[str, bytes] = {}
        if dumps:
            # If it was read, it would make an incident, or replace one.
            trap = [{**report(1, "Nobody has reviewed this."), **incident(1, [1])}]
            collections = {"incidents": self.incidents, "reports": self.reports, "duplicates": self.duplicates}
            for name, documents in {**collections, **dict.fromkeys(UNREVIEWED, trap)}.items():
                files[f"aiidprod/{name}.bson"] = dump(documents)
                files[f"aiidprod/{name}.metadata.json"] = b'{"indexes":[]}'
            for language in ("en", "es", "fr", "ja"):
                files[f"translations/reports_{language}.bson"] = dump(self.translations.get(language, ()))
        if tables:
            files["incidents.csv"] = incidents_csv(self.incidents)
            files["reports.csv"] = reports_csv(self.reports)
            files["duplicates.csv"] = duplicates_csv(self.duplicates)
            files["classifications_GMF.csv"] = b"Incident ID,Published\n1,true\n"
            files["submissions.csv"] = b"incident_id,title,text\n1,Nobody,has reviewed this\n"
        files["license.txt"] = b"Nobody's.\n"
        files |= {name: content for name, content in self.changed.items() if content is not None}
        return {name: content for name, content in files.items() if self.changed.get(name, b"") is not None}

    def write(self, path: Path, *, dumps: bool = True, tables: bool = True) -> Path:
        """Packs the files, dumps first. The ending of `path` names the compression."""
        return pack(path, {f"{FOLDER}/{name}": c for name, c in self.files(dumps=dumps, tables=tables).items()})


def pack(path: Path, files: Mapping[str, bytes], links: Iterable[tarfile.TarInfo] = ()) -> Path:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for link in links:
            archive.addfile(link)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    path.write_bytes(_PACKERS[path.suffix](content.getvalue()))
    return path


def dump(documents: Iterable[Document]) -> bytes:
    """One behind the other, as mongodump writes them."""
    return b"".join(map(bson.encode, documents))


def incidents_csv(incidents: Iterable[Document]) -> bytes:
    """The table as mongoexport writes it: the header isn't quoted, and an ObjectId is a call."""
    columns = ("incident_id", "date", "reports", "description", "title")
    rows = ([f"ObjectId({each['_id']})", *(_exported(each.get(c)) for c in columns)] for each in incidents)
    return _csv([["_id", *columns], *rows])


def reports_csv(reports: Iterable[Document]) -> bytes:
    """The table as AIID's job writes it since March 2025: all fields quoted, backslashes doubled, lists with commas."""
    columns = ("language", "report_number", "text", "title", "url", "tags")
    rows = (
        [str(each["_id"]), *(", ".join(v) if isinstance(v := each.get(c, ""), list) else v for c in columns)]
        for each in reports
    )
    return _csv([["_id", *columns], *rows], quoting=csv.QUOTE_ALL, escapechar="\\")


def duplicates_csv(duplicates: Iterable[Document]) -> bytes:
    columns = ("duplicate_incident_number", "true_incident_number")
    return _csv([list(columns), *([each[column] for column in columns] for each in duplicates)])


def _exported(value: object) -> object:
    return json.dumps(value, separators=(",", ":")) if isinstance(value, list) else value


def _csv(rows: Iterable[Sequence[object]], **options: Any) -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n", **options).writerows(rows)
    return file.getvalue().encode()


def large(incidents: int = 1400, reports: int = 7000, dimension: int = 768, chars: int = 8000) -> Snapshot:
    """A snapshot of AIID's size, with texts of about `chars` characters. Half of the vectors have the form's hash."""
    chosen = random.Random(0)
    words = ["robot", "the", "“quoted”", "said", "a", "car", "system_error", "harm", "in", "2026", "Ångström", "of"]

    def a_report(number: int) -> Document:
        text = f"Report {number}. " + " ".join(chosen.choices(words, k=chars // 6))
        document = report(number, text)
        vector = [chosen.gauss(0, 1) for _ in range(dimension)]
        by = form_hash(text) if number % 2 else job_hash(document["text"])
        return {**document, "embedding": embedding(vector, by)}

    each = reports // incidents
    return Snapshot(
        [incident(n, range((n - 1) * each + 1, n * each + 1)) for n in range(1, incidents + 1)],
        [a_report(number) for number in range(1, reports + 1)],
        [duplicate(incidents + 5, 1)],
    )


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    large().write(folder / NAME)
