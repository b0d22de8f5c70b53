"""Which precision serves, and the self-test: what is damaged doesn't serve, and float32 serves in int8's place."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from exported_reports import edit_report, set_agreement
from integer_products import int8_on_every_cpu
from models.export import export
from models.touched_weights import is_touched
from similarity.encoder import cpu
from similarity.encoder.cpu import lack_of
from similarity.encoder.loading import Choice, choose, load_encoder, load_serving_encoder
from similarity.encoder.model_folder import EXPORTED_FILENAMES, ModelFiles, sha256_of
from similarity.encoder.onnx_encoder import OnnxEncoder
from similarity.encoder.safetensors_header import read_header
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.errors import ModelError
from similarity.incidents.state import IncidentState
from similarity.settings import PRECISIONS, Engine, Precision, PrecisionSetting, Settings
from similarity.shelf.usable import FolderModel
from tiny import cleared, write_tiny_longformer

LACKS = "this CPU doesn't multiply {} natively"
Edit = Callable[[Path], object]


@pytest.fixture(autouse=True)
def every_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with int8_on_every_cpu(monkeypatch):
        yield


@pytest.fixture(scope="module")
def exported(tiny_state: IncidentState, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model in every precision, which agrees. Shared: don't write to it."""
    folder = write_tiny_longformer(tmp_path_factory.mktemp("exported"))
    with pytest.MonkeyPatch.context() as patch, int8_on_every_cpu(patch):
        for precision in ("bfloat16", "int8"):
            export(folder, precision, state=tiny_state)
            set_agreement(folder, precision, cosine=0.996, centered=0.995)
    note_hashes(folder)
    return folder


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "model"))


def note_hashes(folder: Path) -> None:
    """As the export leaves provenance.json."""
    hashes = {name: sha256_of(folder / name) for name in EXPORTED_FILENAMES}
    values = {"model": "tiny", "weights_sha256": sha256_of(folder / "model.safetensors"), "graph_sha256": hashes}
    (folder / "provenance.json").write_text(json.dumps(values))


def refusal(folder: Path, engine: Engine = "onnx", precision: Precision = "float32") -> str | None:
    """Why the encoder can't be loaded, None if it can."""
    try:
        load_encoder(folder, engine=engine, precision=precision)
    except ModelError as error:
        return error.detail
    return None


def lacking(monkeypatch: pytest.MonkeyPatch, *precisions: Precision) -> None:
    """From here on, the CPU of this process lacks these precisions, and no other."""

    def lack(precision: Precision) -> str | None:
        return LACKS.format(precision) if precision in precisions else None

    monkeypatch.setattr("similarity.encoder.loading.lack_of", lack)


def test_the_cpu_is_asked_for_its_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    cases: list[tuple[dict[str, bool], list[Precision]]] = [
        ({}, ["bfloat16", "int8"]),
        ({"AVX512F": True, "AVX512VNNI": False}, ["bfloat16", "int8"]),
        ({"AVX512F": True, "AVX512VNNI": True}, ["bfloat16"]),
        ({"AVX512VNNI": True, "AVX512BF16": True}, []),
        ({"ASIMDDP": True}, ["bfloat16"]),
    ]
    for has, lacks in cases:
        monkeypatch.setattr(cpu, "__cpu_features__", has)
        precisions: tuple[Precision, ...] = ("float32", "bfloat16", "int8")
        found = {precision: lack_of(precision) for precision in precisions}
        assert [precision for precision in precisions if found[precision]] == lacks, has
        for precision in lacks:
            lacking = {"int8": "it has neither AVX-512 VNNI", "bfloat16": "it lacks AVX512-BF16"}[precision]
            assert str(found[precision]).startswith(f"{LACKS.format(precision)}: {lacking}")


def test_the_cpus_instructions_are_those_that_the_kernel_knows() -> None:
    """numpy's names are its own, so that a new version could drop one."""
    try:
        flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        pytest.skip("there is no /proc/cpuinfo")
    if flags is None:
        pytest.skip("the CPU isn't from Intel or AMD")
    names = flags[1].split()
    assert (lack_of("int8") is None) == ("avx512_vnni" in names)
    assert (lack_of("bfloat16") is None) == ("avx512_bf16" in names)


def no_report(precision: str) -> Edit:
    return lambda folder: (folder / f"encoder.{precision}.json").unlink()


def not_measured(precision: Precision) -> Edit:
    return lambda folder: edit_report(folder, precision, lambda report: report.update(agreement=None))


def agrees(precision: Precision, **values: float) -> Edit:
    return lambda folder: set_agreement(folder, precision, **values)


NOTHING: Edit = lambda _: None  # noqa: E731
# Engine, what the CPU lacks, what is done to the folder -> what auto takes, and why.
AUTO: dict[str, tuple[Engine, Precision | None, Edit, Precision, str]] = {
    "int8": ("onnx", None, NOTHING, "int8", ""),
    "bfloat16": ("torch", None, NOTHING, "bfloat16", ""),
    "a CPU without int8": ("onnx", "int8", NOTHING, "float32", LACKS.format("int8")),
    "a CPU without bfloat16": ("torch", "bfloat16", NOTHING, "float32", LACKS.format("bfloat16")),
    "no report": ("onnx", None, no_report("int8"), "float32", "int8 wasn't exported"),
    "no report, torch": ("torch", None, no_report("bfloat16"), "float32", "bfloat16 wasn't exported"),
    "no graph": ("onnx", None, lambda d: (d / "encoder.int8.onnx").unlink(), "float32", "int8 wasn't exported"),
    "no weights": ("onnx", None, lambda d: (d / "encoder.int8.bin").unlink(), "float32", "int8 wasn't exported"),
    "not measured": (
        "onnx", None, not_measured("int8"), "float32",
        "int8's agreement with float32 wasn't measured .the export had no state with titles.",
    ),
    "not measured, torch": ("torch", None, not_measured("bfloat16"), "float32", "bfloat16's agreement .* no state"),
    "cosine differs": (
        "onnx", None, agrees("int8", cosine=0.9949), "float32",
        "int8 doesn't agree enough with float32 .same first incident as float32: 0.9949 by cosine, 0.9950 by centered; "
        "smallest .*; 5 texts; needed: 0.995.",
    ),
    "centered differs": ("onnx", None, agrees("int8", centered=0.9), "float32", "0.9960 by cosine, 0.9000 by centered"),
    "centered differs, torch": ("torch", None, agrees("bfloat16", centered=0.5), "float32", "bfloat16 doesn't agree"),
}  # fmt: skip


@pytest.mark.parametrize("name", AUTO)
def test_auto_takes_the_fastest_that_agrees(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, lacks, edit, precision, reason = AUTO[name]
    lacking(monkeypatch, *([lacks] if lacks else []))
    edit(folder)
    found = choose(ModelFiles(folder), engine, "auto")
    assert found.precision == precision
    assert re.search(reason, found.reason) if found.reason else not reason
    assert found.level == logging.INFO or not found.reason


@pytest.mark.parametrize(
    "damage",
    [lambda path: path.write_bytes(b"{"), lambda path: path.write_bytes(b""), lambda path: cleared(path).mkdir()],
)
@pytest.mark.parametrize(("engine", "precision"), [("onnx", "int8"), ("torch", "bfloat16")])
def test_auto_does_without_a_precision_whose_report_is_damaged(
    engine: Engine,
    precision: Precision,
    damage: Edit,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    lacking(monkeypatch)
    damage(folder / f"encoder.{precision}.json")
    found = choose(ModelFiles(folder), engine, "auto")
    assert (found.precision, found.level) == ("float32", logging.WARNING)
    assert f"encoder.{precision}.json" in str(found.reason)
    assert load_serving_encoder(folder, engine=engine, precision="auto").precision == "float32"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    FolderModel(Settings.from_environment({"MODEL_DIR": str(folder)})).require_loadable(engine, "auto")


@pytest.mark.parametrize(
    ("engine", "setting", "lacks", "expected"),
    [
        ("onnx", "float32", "int8", Choice("float32")),
        ("onnx", "int8", None, Choice("int8")),
        ("onnx", "int8", "int8", Choice("float32", LACKS.format("int8"))),
        ("torch", "float32", "bfloat16", Choice("float32")),
        ("torch", "bfloat16", None, Choice("bfloat16")),
        # Without the instructions it is right, though slower.
        ("torch", "bfloat16", "bfloat16", Choice("bfloat16")),
    ],
)
def test_a_setting_is_taken_unless_the_cpu_computes_it_wrongly(
    engine: Engine,
    setting: PrecisionSetting,
    lacks: Precision | None,
    expected: Choice,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lacking(monkeypatch, *([lacks] if lacks else []))
    # However it agrees.
    for precision in ("int8", "bfloat16"):
        set_agreement(folder, precision, cosine=0.1)
    assert choose(ModelFiles(folder), engine, setting) == expected


@pytest.mark.parametrize("lacks", [(), ("int8", "bfloat16")])
@pytest.mark.parametrize(("engine", "setting"), [("onnx", "bfloat16"), ("torch", "int8")])
def test_a_precision_of_the_other_engine_is_refused_on_every_cpu(
    engine: Engine,
    setting: Precision,
    lacks: tuple[Precision, ...],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lacking(monkeypatch, *lacks)
    require_loadable = FolderModel(Settings.from_environment({"MODEL_DIR": str(folder)})).require_loadable
    reason = f"ENCODER_PRECISION for the engine {engine} must be one of {', '.join(PRECISIONS[engine])} or auto"
    for ask in (
        lambda: choose(ModelFiles(folder), engine, setting),
        lambda: load_serving_encoder(folder, engine=engine, precision=setting),
        lambda: load_encoder(folder, engine=engine, precision=setting),
        lambda: require_loadable(engine, setting),
    ):
        with pytest.raises(ModelError) as caught:
            ask()
        assert caught.value.detail == f"{reason}, not {setting}"


@pytest.mark.parametrize("lacks", [(), ("int8",)])
@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        (["encoder.int8.onnx"], "there is no graph .*encoder.int8.onnx; make it with scripts/export_onnx.py"),
        (["encoder.int8.bin"], "there are no weights for .*encoder.int8.onnx; make them with .* --precision int8$"),
        (["encoder.int8.onnx", "encoder.int8.bin", "encoder.int8.json"], "there is no graph .*encoder.int8.onnx"),
    ],
)
def test_what_was_not_exported_is_named_on_every_cpu(
    missing: list[str], reason: str, lacks: tuple[Precision, ...], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking(monkeypatch, *lacks)
    for name in missing:
        (folder / name).unlink()
    require_loadable = FolderModel(Settings.from_environment({"MODEL_DIR": str(folder)})).require_loadable
    for ask in (lambda: load_serving_encoder(folder, precision="int8"), lambda: require_loadable("onnx", "int8")):
        with pytest.raises(ModelError) as caught:
            ask()
        assert re.search(reason, caught.value.detail), caught.value.detail
    require_loadable("onnx", "auto")
    assert load_serving_encoder(folder, precision="auto").precision == "float32"


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str, Any, Any]]:
    fields = [vars(record) for record in caplog.records]
    return [(each["levelno"], each["msg"], each["asked_for"], each["reason"]) for each in fields]


@pytest.mark.parametrize(
    ("engine", "setting", "precision"),
    [
        ("onnx", "int8", "int8"),
        ("onnx", "auto", "int8"),
        ("onnx", "float32", "float32"),
        ("torch", "bfloat16", "bfloat16"),
        ("torch", "auto", "bfloat16"),
    ],
)
def test_what_was_asked_for_serves_without_a_word(
    engine: Engine,
    setting: PrecisionSetting,
    precision: Precision,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    lacking(monkeypatch)
    caplog.set_level(logging.DEBUG)
    encoder = load_serving_encoder(folder, engine=engine, precision=setting)
    assert (encoder.engine, encoder.precision) == (engine, precision)
    assert caplog.records == []


@pytest.mark.parametrize(("setting", "level"), [("int8", logging.WARNING), ("auto", logging.INFO)])
def test_a_cpu_without_the_precision_serves_float32_and_says_why_in_one_line(
    setting: PrecisionSetting,
    level: int,
    folder: Path,
    tiny_encoder: TorchEncoder,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    lacking(monkeypatch, "int8")
    encoder = load_serving_encoder(folder, precision=setting)
    assert encoder.precision == "float32"
    assert np.allclose(encoder.encode("a robot").vector, tiny_encoder.encode("a robot").vector, atol=1e-5)
    assert logged(caplog) == [(level, "float32 serves", setting, LACKS.format("int8"))]


def test_outside_of_serving_int8_is_refused_without_the_instructions(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking(monkeypatch, "int8")
    with pytest.raises(ModelError, check=lambda error: error.detail == LACKS.format("int8")):
        load_encoder(folder, precision="int8")


def zero_pages(path: Path) -> None:
    """As a disk gives back a file whose second half it lost."""
    content = path.read_bytes()
    kept = len(content) // 8192 * 4096
    path.write_bytes(content[:kept] + bytes(len(content) - kept))


def flip(path: Path, *places: int, bits: int = 0x80) -> None:
    content = bytearray(path.read_bytes())
    for at in places:
        content[at] ^= bits
    path.write_bytes(content)


def of_other_weights(folder: Path) -> None:
    """The graph of another model, as the export would write it."""
    content = (folder / "encoder.int8.onnx").read_bytes()
    model = onnx.load_from_string(content)
    next(each for each in model.metadata_props if each.key == "model_fingerprint").value = "0" * 64
    (folder / "encoder.int8.onnx").write_bytes(model.SerializeToString())
    (folder / "provenance.json").unlink()


DAMAGED_INT8: dict[str, tuple[Edit, str]] = {
    "weights of zeros": (
        lambda d: zero_pages(d / "encoder.int8.bin"), "the model .* fails its self-test in int8: its vector differs"
    ),
    "weights cut off": (
        lambda d: (d / "encoder.int8.bin").write_bytes((d / "encoder.int8.bin").read_bytes()[:-9000]), "can't be loaded"
    ),
    "no weights left": (lambda d: (d / "encoder.int8.bin").write_bytes(b""), "can't be loaded"),
    "weights turned": (
        lambda d: (d / "encoder.int8.bin").write_bytes((d / "encoder.int8.bin").read_bytes()[::-1]), "vector differs"
    ),
    "a flipped bit in the graph": (lambda d: flip(d / "encoder.int8.onnx", 5000), "isn't the file that was exported"),
    "an empty graph": (lambda d: (d / "encoder.int8.onnx").write_bytes(b""), "isn't the file that was exported"),
    "a graph of another model": (of_other_weights, "was made from other files"),
    "another vector in the report": (
        lambda d: edit_report(d, "int8", lambda report: report["self_test"]["vector"].reverse()), "its vector differs"
    ),
    "a vector of another size": (
        lambda d: edit_report(d, "int8", lambda report: report["self_test"].update(vector=[1.0])), "by inf of the"
    ),
    "a token that the model hasn't": (
        lambda d: edit_report(d, "int8", lambda report: report["self_test"].update(ids=[0, 10**6, 2])),
        "fails its self-test in int8: it can't compute the vector",
    ),
    "more tokens than the model takes": (
        lambda d: edit_report(d, "int8", lambda report: report["self_test"].update(ids=[5] * 4000)), "self-test"
    ),
    "no JSON": (lambda d: (d / "encoder.int8.json").write_bytes(b"{"), "it isn't JSON"),
    "a report of nothing": (lambda d: (d / "encoder.int8.json").write_bytes(b"{}"), "isn't a report of scripts/export"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", DAMAGED_INT8)
def test_float32_serves_where_int8_is_damaged_and_says_why_in_one_line(
    name: str,
    folder: Path,
    tiny_encoder: TorchEncoder,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    lacking(monkeypatch)
    damage, reason = DAMAGED_INT8[name]
    damage(folder)
    with pytest.raises(ModelError):
        load_encoder(folder, precision="int8")
    for setting in ("int8", "auto"):
        caplog.clear()
        encoder = load_serving_encoder(folder, precision=setting)
        assert encoder.precision == "float32"
        assert np.allclose(encoder.encode("a robot").vector, tiny_encoder.encode("a robot").vector, atol=1e-5)
        [(level, message, asked_for, found)] = logged(caplog)
        assert (level, message, asked_for) == (logging.WARNING, "float32 serves", setting)
        assert re.search(reason, found), found
        assert "export it again with scripts/export_onnx.py --precision int8" in found
        assert found.isprintable()


def test_where_float32_fails_too_it_is_a_model_error(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for precision in ("int8", "float32"):
        edit_report(folder, precision, lambda report: report["self_test"]["vector"].reverse())
    for setting in ("int8", "auto", "float32"):
        with pytest.raises(ModelError) as caught:
            load_serving_encoder(folder, precision=setting)
        assert "fails its self-test in float32: its vector differs from the exported one" in caught.value.detail
        assert caught.value.status == 503
    assert caplog.records == []


@pytest.mark.parametrize(("engine", "precision"), [("onnx", "int8"), ("onnx", "float32"), ("torch", "bfloat16")])
def test_a_vector_of_nan_fails_the_self_test(
    engine: Engine, precision: Precision, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = {"onnx": OnnxEncoder, "torch": TorchEncoder}[engine]
    for value in (np.nan, np.inf):
        monkeypatch.setattr(kind, "vectors", lambda *_, value=value: np.full((1, 32), value, np.float32))
        with pytest.raises(ModelError, check=lambda error: "its vector differs" in error.detail):
            load_encoder(folder, engine=engine, precision=precision)


# Flipped bits. What compares files (the hash of the graph, the fingerprint) is off where the self-test is tried alone.


@pytest.fixture
def self_test_alone(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fingerprint = ModelFiles(exported).fingerprint()
    monkeypatch.setattr(ModelFiles, "fingerprint", lambda _: fingerprint)
    monkeypatch.setattr(ModelFiles, "require_graph_unchanged", lambda *_: None)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_a_high_bit_in_any_weight_of_a_layer_is_noticed(
    engine: Engine, folder: Path, self_test_alone: None, tiny_encoder: TorchEncoder
) -> None:
    """One in the exponent. The keys' bias is an exception, since it adds the same to all scores of a head.

    So is a row of the tables of words and positions that the text of the self-test doesn't have.
    """
    path = folder / "model.safetensors"
    content, places = path.read_bytes(), read_header(path)
    layers = [
        name
        for name in places
        if is_touched(name, tiny_encoder.config) and name.startswith(("encoder.", "embeddings.L"))
    ]
    assert len(layers) == 3 * 16 + 2
    unnoticed = set()
    for name in layers:
        place = places[name]
        for at in {place.start + 3, place.end - 1}:  # the last byte of a number: sign, and seven bits of the exponent
            path.write_bytes(content)
            flip(path, at, bits=0x40)
            reason = refusal(folder, engine)
            if reason is None:
                unnoticed.add(name)
            else:
                assert "fails its self-test in float32" in reason
    assert {name for name in unnoticed if not name.endswith(".key.bias")} == set()
    path.write_bytes(content)
    ids = json.loads((folder / "encoder.json").read_bytes())["self_test"]["ids"]
    word = places["embeddings.word_embeddings.weight"].start + 4 * 32 * ids[2] + 3
    flip(path, word, bits=0x40)
    with pytest.raises(ModelError):
        load_encoder(folder, engine=engine)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["encoder.onnx", "encoder.int8.onnx", "model.safetensors", "encoder.int8.bin"])
def test_a_flipped_bit_never_ends_in_other_vectors_than_the_self_test_allows(name: str, folder: Path) -> None:
    """Whatever the file: either it is refused in words of ours, or it serves, and the vector is near."""
    precision: Precision = "int8" if "int8" in name else "float32"
    test = json.loads((folder / ("encoder.int8.json" if precision == "int8" else "encoder.json")).read_bytes())[
        "self_test"
    ]
    expected = np.array(test["vector"])
    path = folder / name
    content = path.read_bytes()
    places = [(at, bits) for at in range(8, len(content), len(content) // 25) for bits in (0x01, 0x80)]
    refused = 0
    for at, bits in places:
        path.write_bytes(content)
        flip(path, at, bits=bits)
        if refusal(folder, precision=precision):
            refused += 1
            continue
        (vector,) = load_encoder(folder, precision=precision).vectors([test["ids"]])
        assert np.linalg.norm(vector - expected) <= test["tolerance"] * np.linalg.norm(expected)
    # The hash covers graphs, and the samples of the fingerprint all of so small a file of weights. Integers have a hash
    # in provenance.json, which the build of an image compares.
    if name != "encoder.int8.bin":
        assert refused == len(places)
    path.write_bytes(content)
    ModelFiles(folder).require_unchanged()
    flip(path, len(content) // 2, bits=0x01)
    with pytest.raises(ModelError):
        ModelFiles(folder).require_unchanged()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["encoder.json", "encoder.int8.json", "config.json", "tokenizer.json", "provenance.json"]
)
def test_a_flipped_bit_in_json_is_refused_or_harmless(name: str, folder: Path, tiny_encoder: TorchEncoder) -> None:
    """Float32 either gives its vectors, or a ModelError."""
    path = folder / name
    content = path.read_bytes()
    expected = tiny_encoder.vectors([[0, 50, 60, 2]])[0]
    places = [(at, bits) for at in range(0, len(content), max(1, len(content) // 20)) for bits in (0x01, 0x10)]
    served = 0
    for at, bits in places:
        path.write_bytes(content)
        flip(path, at, bits=bits)
        try:
            encoder = load_serving_encoder(folder, precision="int8")
        except ModelError:
            continue
        served += 1
        (vector,) = encoder.vectors([[0, 50, 60, 2]])
        limit = 1e-5 if encoder.precision == "float32" else 0.3 * np.linalg.norm(expected)
        assert np.abs(vector - expected).max() <= limit
    if name == "encoder.int8.json":
        assert served == len(places)


def test_one_digit_of_a_report_makes_no_other_precision_serve(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lacking(monkeypatch)
    set_agreement(folder, "int8", cosine=0.991)
    path = folder / "encoder.int8.json"
    path.write_bytes(path.read_bytes().replace(b"0.991", b"0.995"))
    assert load_serving_encoder(folder, precision="auto").precision == "float32"
    [(level, _, _, reason)] = logged(caplog)
    assert level == logging.WARNING
    assert "encoder.int8.json isn't the file that was exported" in reason


@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_one_digit_of_a_report_does_not_let_damaged_weights_pass(engine: Engine, folder: Path) -> None:
    path = folder / "encoder.json"
    content = path.read_bytes()
    assert b'"tolerance": 0.0001' in content
    path.write_bytes(content.replace(b'"tolerance": 0.0001', b'"tolerance": 0.9001'))
    assert "encoder.json isn't the file that was exported" in str(refusal(folder, engine))


@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_the_self_test_is_the_vector_of_the_export(engine: Engine, folder: Path, tiny_encoder: TorchEncoder) -> None:
    test = json.loads((folder / "encoder.json").read_bytes())["self_test"]
    assert len(test["ids"]) == 5
    assert (test["ids"][0], test["ids"][-1]) == (0, 2)
    assert np.allclose(test["vector"], tiny_encoder.vectors([test["ids"]])[0], atol=1e-6)
    # Within the limit.
    edit_report(
        folder,
        "float32",
        lambda report: report["self_test"].update(vector=(np.array(test["vector"]) * 1.00009).tolist()),
    )
    load_encoder(folder, engine=engine)
    # Beyond it.
    edit_report(
        folder,
        "float32",
        lambda report: report["self_test"].update(vector=(np.array(test["vector"]) * 1.0002).tolist()),
    )
    with pytest.raises(ModelError, check=lambda error: r"2.0e-04 of the length (allowed: 1.0e-04)" in error.detail):
        load_encoder(folder, engine=engine)


# Folders from earlier versions.


def of_an_earlier_version(folder: Path) -> None:
    """Graphs without reports, and a graph of int8 that held its weights in blocks of 32."""
    for name in ("encoder.json", "encoder.int8.json", "encoder.bfloat16.json", "encoder.int8.bin"):
        (folder / name).unlink()
    helper = onnx.helper
    block = helper.make_node(
        "MatMulNBits", ["x", "weights", "scales"], ["y"], domain="com.microsoft", K=32, N=1, bits=8, block_size=32
    )
    graph = helper.make_graph([block], "longformer_cls", [], [])
    (folder / "encoder.int8.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    (folder / "provenance.json").write_text('{"model": "tiny"}')


@pytest.mark.parametrize(
    ("engine", "setting"), [("onnx", "float32"), ("onnx", "auto"), ("torch", "float32"), ("torch", "auto")]
)
def test_float32_of_an_earlier_version_serves(
    engine: Engine, setting: PrecisionSetting, folder: Path, tiny_encoder: TorchEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking(monkeypatch)
    of_an_earlier_version(folder)
    FolderModel(Settings.from_environment({"MODEL_DIR": str(folder)})).require_loadable(engine, setting)
    encoder = load_serving_encoder(folder, engine=engine, precision=setting)
    assert encoder.precision == "float32"
    assert np.allclose(encoder.encode("a robot").vector, tiny_encoder.encode("a robot").vector, atol=1e-5)


def test_bfloat16_of_an_earlier_version_serves_if_asked_for(folder: Path) -> None:
    of_an_earlier_version(folder)
    assert load_serving_encoder(folder, engine="torch", precision="bfloat16").precision == "bfloat16"


def test_int8_of_an_earlier_version_is_refused_until_it_is_exported_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking(monkeypatch)
    of_an_earlier_version(folder)
    with pytest.raises(ModelError) as caught:
        load_serving_encoder(folder, precision="int8")
    assert "there are no weights for " in caught.value.detail
    assert caught.value.detail.endswith("--precision int8")
    export(folder, "int8")
    assert load_serving_encoder(folder, precision="int8").precision == "int8"


def test_threads_share_an_encoder_of_int8(folder: Path) -> None:
    encoder = load_encoder(folder, precision="int8")
    texts = [f"report number {number} " * number for number in range(1, 20)]
    alone = [encoder.encode(text).vector for text in texts]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda text: encoder.encode(text).vector, texts))
    assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(alone, together, strict=True))


@pytest.mark.slow
def test_threads_may_load_at_once(folder: Path) -> None:
    with ThreadPoolExecutor(6) as pool:
        settings: list[PrecisionSetting] = ["int8", "float32", "auto"] * 4
        found = list(pool.map(lambda setting: load_serving_encoder(folder, precision=setting), settings))
    vectors = {encoder.precision: encoder.encode("a robot").vector for encoder in found}
    assert all(np.array_equal(encoder.encode("a robot").vector, vectors[encoder.precision]) for encoder in found)


def test_a_text_in_int8_is_near_float32(folder: Path, tiny_encoder: TorchEncoder) -> None:
    encoder = load_encoder(folder, precision="int8")
    for text in ("a robot", "A car without a driver hit a pedestrian. " * 12):
        found, expected = encoder.encode(text).vector, tiny_encoder.encode(text).vector
        assert found @ expected >= 0.995 * np.linalg.norm(found) * np.linalg.norm(expected)
