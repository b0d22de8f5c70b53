#!/usr/bin/env python3
"""Serve the handlers on localhost, as API Gateway and Lambda would: the same routes, events and CORS.

Without arguments it makes the quick-start model and the state of the sample snapshot, once, and keeps them in
.quickstart/. Differences from AWS: one process serves all routes, an answer may take longer than 30 s (though a request
that hasn't arrived whole by then is dropped), a URL may be longer than API Gateway takes and a body larger than
Lambda's 6 MB.

Example:
    scripts/serve
Example, with a model and a state of your own:
    scripts/serve --model inference/model --state inference/model/incident_cls.pt
Example, with what the log of a Lambda says of each answer:
    scripts/serve --verbose
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a script: its own folder stands where scripts/ has to be
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from shared import command
from shared.command import INFERENCE_DIR, ROOT, argument_parser

import ctypes
import hashlib
import logging
import os
import socket
from collections.abc import Iterable
from contextlib import suppress

from local.connections import server
from local.gateway import gateway
from models.install_files import finish_install
from similarity.api.routes import DEFAULT_ALLOWED_ORIGINS, HandlerFile, HandlerFileError, find_handlers
from similarity.encoder.loading import choose, load_serving_encoder
from similarity.encoder.model_folder import GRAPH_FILENAMES, HOW_TO_GET_ONE, ModelFiles
from similarity.errors import ModelError, StateError
from similarity.incidents.state import IncidentState
from similarity.refresh.vector_store import StoreError
from similarity.settings import DEFAULT_INCIDENTS_FILENAME, DEFAULT_MODEL_URI, DEFAULT_PRECISION, Settings
from similarity.sources.problems import Problems, SourceError

QUICK_START_DIR = ROOT / ".quickstart"
SAMPLE_DIR = ROOT / "scripts" / "sample"
# In provenance.json of the quick-start models of earlier versions, which took the CLS vector. They are made again.
_MADE_EARLIER = "convert_encoder.py, window 512"
# In glibc's malloc.h.
_M_MMAP_THRESHOLD = -3


def quick_start_model() -> Path:
    """The folder of the quick-start model, made if it is not there. Raises ModelError or OSError."""
    folder = QUICK_START_DIR / "model"
    finish_install(folder)
    files = ModelFiles(folder)
    is_there = all(path.exists() for path in (*files.paths, files.folder / GRAPH_FILENAMES[DEFAULT_PRECISION]))
    if not is_there or files.provenance().get("made_by") == _MADE_EARLIER:
        print("Making the quick-start model, once ...", file=sys.stderr, flush=True)
        # Not at the top, since it imports torch, which serving does without.
        from models.longformer import ConversionError
        from models.quick_start import make_quick_start_model

        try:
            make_quick_start_model(folder)
        except ConversionError as error:
            raise ModelError(f"the quick-start model can't be made: {error}") from error
    return folder


def sample_state(model_dir: Path) -> Path:
    """The state of the sample snapshot for a model, built if it isn't there, or was built by an earlier version.

    Raises ModelError, StoreError or OSError.
    """
    digest = hashlib.sha256(ModelFiles(model_dir).fingerprint().encode())
    for table in ("incidents.csv", "reports.csv"):
        digest.update((SAMPLE_DIR / table).read_bytes())
    path = QUICK_START_DIR / f"sample-{digest.hexdigest()[:16]}.pt"
    if not _is_there(path):
        print("Building the state of the sample snapshot, once ...", file=sys.stderr, flush=True)
        from states.building import Options, build

        path.parent.mkdir(exist_ok=True)
        build(SAMPLE_DIR, Options(model_dir=model_dir, out=path, cache=QUICK_START_DIR), Problems())
    return path


def _is_there(state_path: Path) -> bool:
    """Whether a state is there and whole. Those of earlier versions lack the calibration or the map."""
    try:
        state = IncidentState.load(state_path)
        return bool(state.fit.calibration) and len(state.points) > 0
    except StateError:
        return False


def prepare(model_dir: Path | None, state_path: Path | None) -> dict[str, str]:
    """The environment variables that point the handlers at model and state.

    Raises what is wrong with either before a request does.
    """
    if model_dir is None:
        model_dir = quick_start_model()
    elif state_path is None and (model_dir / DEFAULT_INCIDENTS_FILENAME).exists():
        state_path = model_dir / DEFAULT_INCIDENTS_FILENAME
    ModelFiles(model_dir).require_weights_unchanged()
    settings = Settings.from_environment()
    # Before a state is built for what can't be served.
    encoder = load_serving_encoder(model_dir, engine=settings.engine, precision=settings.precision)
    state_path = state_path or sample_state(model_dir)
    state = IncidentState.load(state_path)
    state.require_made_by(encoder, encoder.name or os.environ.get("HF_MODEL_URI") or DEFAULT_MODEL_URI)
    print(f"{len(state)} incidents, model {encoder.name or model_dir}", file=sys.stderr)
    if settings.precision != DEFAULT_PRECISION:
        reason = choose(encoder.files, settings.engine, settings.precision).reason
        because = f", because {reason}" if reason else ""
        print(f"ENCODER_PRECISION={settings.precision}: {encoder.precision} serves{because}", file=sys.stderr)
    return {"MODEL_DIR": str(model_dir.resolve()), "INCIDENTS_FILENAME": str(state_path.resolve())}


class FieldsFormatter(logging.Formatter):
    """Level and message, then the fields of `extra`. Fields that are None are left out, as in a Lambda's log."""

    _USUAL = frozenset({*vars(logging.makeLogRecord({})), "message"})

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        fields = {name: value for name, value in vars(record).items() if name not in self._USUAL}
        return " ".join(
            [super().formatMessage(record), *(f"{name}={value}" for name, value in fields.items() if value is not None)]
        )


def set_up_logging(*, verbose: bool) -> None:
    """Warnings and errors go to stderr, with `verbose` the line about each answer too. uvicorn has a log of its own."""
    handler = logging.StreamHandler()
    handler.setFormatter(FieldsFormatter("%(levelname)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    if verbose:
        logging.getLogger("similarity").setLevel(logging.INFO)


def keep_memory_small() -> None:
    """Makes glibc give every freed block of 128 KiB or more back to the system. Elsewhere it does nothing.

    glibc begins with this limit, but raises it up to 32 MiB as such blocks are freed. Then pieces of each new state
    stay in the heaps of a dozen threads, and the process grows by 60 MB. A Lambda answers in one thread, which uses its
    own heap again.
    https://man7.org/linux/man-pages/man3/mallopt.3.html
    """
    with suppress(AttributeError, OSError, TypeError):  # no mallopt, or no C library of that kind
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 128 * 1024)


def listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises OSError, e.g. where the port is in use."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's algorithm off only where the protocol is named. With it, each later request of a
    # connection waits 40 ms for its answer's second half.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # Else a restart has to wait until the last connections of the run before are forgotten.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def addresses(url: str, handlers: Iterable[HandlerFile]) -> str:
    """The lines that say where to look."""
    lines = [f"Serving on {url}/similar (Ctrl-C ends it)"]
    if any(handler.page for handler in handlers):
        lines.append(f"A page to look at: {url}/")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argument_parser(__doc__, prog="scripts/serve")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=3001, help="port to listen on, 0 for any free one (default 3001)")
    parser.add_argument("--model", type=Path, help="model folder (default: the quick-start model)")
    parser.add_argument(
        "--state", type=Path, help="incident state (default: incident_cls.pt in MODEL, else of the sample snapshot)"
    )
    parser.add_argument(
        "--allow-origin", action="append", metavar="ORIGIN", help="site whose pages may call (default localhost:3000)"
    )
    parser.add_argument(
        "--verbose", action="store_true", help="log tokens, milliseconds and state of each answer, as a Lambda does"
    )
    args = parser.parse_args(argv)
    set_up_logging(verbose=args.verbose)
    keep_memory_small()
    if args.model is not None and not args.model.exists():
        parser.error(f"there is no {args.model}: {HOW_TO_GET_ONE}")
    if args.state is not None and not args.state.exists():
        parser.error(f"there is no {args.state}")
    try:
        listener = listen(args.host, args.port)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else "ports go from 0 to 65535"
        print(f"scripts/serve: can't listen on {args.host}:{args.port}: {reason}", file=sys.stderr)
        return 1
    try:
        os.environ.update(prepare(args.model, args.state))
        handlers = find_handlers(INFERENCE_DIR)
        app = gateway(handlers, args.allow_origin or DEFAULT_ALLOWED_ORIGINS)
        listener.listen()  # Else a request would be refused between the line "Serving on" and uvicorn's start.
    except (ModelError, StateError) as error:
        print(f"scripts/serve: {error.detail}", file=sys.stderr)
        return 1
    except (SourceError, StoreError, HandlerFileError, OSError) as error:
        print(f"scripts/serve: {error}", file=sys.stderr)
        return 1
    host, port = listener.getsockname()[:2]
    serving = server(app)
    # From here on Ctrl-C is uvicorn's, which passes it on when it has shut down. Otherwise Ctrl-C could end in a
    # traceback while asyncio makes its loop.
    with suppress(KeyboardInterrupt), serving.capture_signals():
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        print(addresses(url, handlers), flush=True)
        serving.run(sockets=[listener])
    return 0


if __name__ == "__main__":
    command.run(main)
