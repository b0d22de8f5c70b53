"""The encoder without torch: ONNX Runtime runs the computation of `similarity.encoder.torch_encoder` as a graph.

`scripts/export_onnx.py` writes the graph, encoder.onnx, into the model's folder. The graph doesn't hold the weights. It
names their places in the safetensors file, and ONNX Runtime maps them into memory. So a process starts in a fraction of
a second.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from similarity.encoder.config import LongformerConfig
from similarity.encoder.model_folder import ModelFiles, export_script
from similarity.encoder.text_encoder import TextEncoder, open_folder, require_vocabulary
from similarity.encoder.tokens import TextTokenizer
from similarity.errors import ModelError
from similarity.settings import DEFAULT_MODEL_FILENAME, DEFAULT_PRECISION, Precision
from similarity.vectors import Vector

# Otherwise ONNX Runtime sends events to Microsoft (since 1.29). It reads this variable during its import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

# https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
_MIB_PER_CPU = 1769
# The export writes these into the graph. They are compared with the model's folder.
FINGERPRINT_KEY, WORDS_KEY = "model_fingerprint", "vocabulary_size"


class OnnxEncoder(TextEncoder):
    """A Longformer that ONNX Runtime computes."""

    engine = "onnx"

    def __init__(
        self,
        config: LongformerConfig,
        session: onnxruntime.InferenceSession,
        tokenizer: TextTokenizer,
        files: ModelFiles,
    ) -> None:
        super().__init__(config, tokenizer, files)
        self._session = session

    @classmethod
    def load(
        cls,
        model_dir: str | Path,
        model_filename: str = DEFAULT_MODEL_FILENAME,
        precision: Precision = DEFAULT_PRECISION,
    ) -> OnnxEncoder:
        """As `load_encoder`."""
        files, config, tokenizer = open_folder(model_dir, model_filename)
        return cls.from_graph(files.graph(precision), config, tokenizer, files, precision)

    @classmethod
    def from_graph(
        cls, path: Path, config: LongformerConfig, tokenizer: TextTokenizer, files: ModelFiles, precision: Precision
    ) -> OnnxEncoder:
        """Loads the graph `path`, which must be beside the weights. Raises ModelError."""
        advice = f"export it again with {export_script(precision)}"
        try:
            session = start_session(path, precision)
        except Exception as error:  # ONNX Runtime's exceptions have no common base class
            raise ModelError(f"{path}, or the weights that it refers to, can't be loaded; {advice}: {error}") from error
        noted = session.get_modelmeta().custom_metadata_map
        encoder = cls(config, session, tokenizer, files)
        expected = files.graph_key(encoder.fingerprint)
        if noted.get(FINGERPRINT_KEY, expected) != expected:
            raise ModelError(f"{path} was made from other files than those beside it; {advice}")
        is_ours = FINGERPRINT_KEY in noted and noted.get(WORDS_KEY, "").isdecimal() and _gives_vectors(session, config)
        if not is_ours:
            raise ModelError(f"{path} isn't a graph that this project exported; {advice}")
        require_vocabulary(tokenizer, int(noted[WORDS_KEY]))
        encoder.precision = precision
        return encoder

    def vectors(self, texts: Sequence[Sequence[int]]) -> Vector:
        return np.stack([self.cls_vector(np.asarray(ids, dtype=np.int64)) for ids in texts])

    def cls_vector(self, ids: NDArray[np.int64]) -> Vector:
        """Token ids (tokens,) with special tokens -> CLS vector (hidden,), float32."""
        (vector,) = self._session.run(None, {"ids": ids})
        return vector  # type: ignore[no-any-return]


def start_session(path: Path, precision: Precision) -> onnxruntime.InferenceSession:
    """ONNX Runtime for the graph `path`, whose external weights are beside it. Raises ONNX Runtime's exceptions."""
    return onnxruntime.InferenceSession(path, _options(precision), providers=["CPUExecutionProvider"])


def _gives_vectors(session: onnxruntime.InferenceSession, config: LongformerConfig) -> bool:
    """Whether the graph takes token ids and gives a CLS vector."""
    takes = [(each.name, each.type, len(each.shape)) for each in session.get_inputs()]
    gives = [(each.name, each.type, list(each.shape)) for each in session.get_outputs()]
    return takes == [("ids", "tensor(int64)", 1)] and gives == [("cls", "tensor(float)", [config.hidden_size])]


def _threads() -> int:
    """One for each CPU that this process may use."""
    # A Lambda shows two CPUs or more, but its memory may buy less than one. Then a second thread only takes time from
    # the first: with half a CPU, 700 tokens take 1.3 times as long.
    memory_mib = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "")
    if memory_mib.isdecimal() and int(memory_mib) <= _MIB_PER_CPU:
        return 1
    affinity = getattr(os, "sched_getaffinity", None)  # Linux
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _options(precision: Precision) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    # By default ONNX Runtime binds threads to cores, which a container may forbid.
    options.intra_op_num_threads = _threads()
    # The graph needs no optimising, which would take longer than the first answer.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    # It would plan the memory for each length of text anew, and keep it. So the process would grow slowly.
    options.enable_mem_pattern = False
    if precision == "float32":
        # Packing all weights takes half a second at the start, and 327 MiB. It saves 5 % of a text at most: the graph
        # swaps factors for short texts, which then need no packing. For int8 it is quick, and products without it are
        # slow.
        options.add_session_config_entry("session.disable_prepacking", "1")
    options.log_severity_level = 3  # errors
    return options
