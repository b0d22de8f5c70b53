"""README is true: its example of a further Lambda deploys and runs, what it names exists, its error table is exact."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import DistilBertConfig, DistilBertForSequenceClassification, PreTrainedTokenizerFast

import embed_to_db_similar
import similar
from app import Config, build_app
from tiny import ROOT, Deployed

README = (ROOT / "README.md").read_text(encoding="utf-8")


def sentiment_example() -> str:
    [block] = re.findall(r"^```python\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    return block


def test_the_example_gets_a_function_and_routes(tmp_path: Path) -> None:
    handlers_dir = tmp_path / "inference"
    shutil.copytree(ROOT / "inference", handlers_dir, ignore=shutil.ignore_patterns("model", "__pycache__"))
    (handlers_dir / "sentiment.py").write_text(sentiment_example(), encoding="utf-8")
    app = build_app(Config(account="123456789012", region="eu-west-1"), handlers_dir=handlers_dir)
    [stack] = [child for child in app.node.children if isinstance(child, cdk.Stack)]
    resources = cdk.assertions.Template.from_stack(stack).to_json()["Resources"].values()
    functions = [r["Properties"] for r in resources if r["Type"] == "AWS::Lambda::Function"]
    commands = [properties["ImageConfig"]["Command"] for properties in functions if "ImageConfig" in properties]
    routes = {r["Properties"]["RouteKey"] for r in resources if r["Type"] == "AWS::ApiGatewayV2::Route"}
    assert ["sentiment.handler"] in commands
    assert len(commands) == 5
    assert {"GET /sentiment", "POST /sentiment"} <= routes


def test_the_example_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sentiment.py"
    path.write_text(sentiment_example(), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("sentiment", path)
    assert spec is not None
    assert spec.loader is not None
    sentiment = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sentiment)
    put_into_hub_cache(tmp_path / "hub", sentiment.MODEL, sentiment.REVISION)
    # transformers read these variables when it was imported.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    event = {"requestContext": {"http": {"method": "GET"}}, "queryStringParameters": {"text": '"what a lovely day"'}}
    envelope = json.loads(sentiment.handler(event, None)["body"])
    assert envelope["statusCode"] == 200, envelope
    assert envelope["body"]["warnings"] == []
    assert envelope["body"]["sentiment"]["label"] == "POSITIVE"
    assert 0.5 < envelope["body"]["sentiment"]["score"] <= 1


def put_into_hub_cache(cache: Path, model: str, revision: str) -> None:
    """A tiny classifier that finds everything positive, where a download would have put it."""
    folder = cache / f"models--{model.replace('/', '--')}" / "snapshots" / revision
    folder.mkdir(parents=True)
    words = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "what", "a", "lovely", "day"])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=16
    ).save_pretrained(folder)
    config = DistilBertConfig(
        vocab_size=len(words), dim=8, n_layers=1, n_heads=2, hidden_dim=8, max_position_embeddings=16,
        id2label={0: "NEGATIVE", 1: "POSITIVE"}, label2id={"NEGATIVE": 0, "POSITIVE": 1},
    )  # fmt: skip
    classifier = DistilBertForSequenceClassification(config)
    torch.nn.init.zeros_(classifier.classifier.weight)
    classifier.classifier.bias.data = torch.tensor([-1.0, 1.0])
    classifier.save_pretrained(folder)


def error_table() -> list[tuple[str, int, str]]:
    rows = re.findall(r"^\| (.+?) \| (400|500) \| `(.+?)` \|$", README, flags=re.MULTILINE)
    return [(request, int(status), message) for request, status, message in rows]


def event_of(request: str) -> dict[str, Any]:
    if body := re.match(r"`(\{.*\})`", request):
        return {"body": body[1]}
    bodies = {
        "no `text`, a blank one, or emoji alone": "{}",
        "a body of `text=a`": "text=a",
        "`/similar` without a state that can be loaded": '{"text": "a"}',
    }
    return {"body": bodies[request]}


@pytest.mark.parametrize(("request_", "status", "message"), error_table(), ids=lambda value: str(value)[:30])
def test_the_error_replies_are_those_of_the_table(request_: str, status: int, message: str, deployed: Deployed) -> None:
    if status == 500:
        deployed.state_path.write_bytes(b"broken")
    handler = embed_to_db_similar.handler if "embed" in request_ else similar.handler
    envelope = json.loads(handler(event_of(request_), None)["body"])
    assert envelope["statusCode"] == status
    # The tiny model has 32 dimensions, the quick-start model 384.
    assert envelope["body"]["msg"] == message.replace("384", "32")


def test_the_error_table_was_found() -> None:
    assert len(error_table()) == 6


def test_what_is_named_is_there() -> None:
    named = set(re.findall(r"`?((?:scripts|inference|tests)/[\w./-]*\w)`?", README))
    made = {"inference/sentiment.py", "inference/model"}
    assert named - made, "README names no file?"
    assert sorted(name for name in named - made if not (ROOT / name).exists()) == []


def test_links_within_the_page_lead_somewhere() -> None:
    headings = {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in re.findall(r"^#+ (.+)$", README, re.M)
    }
    assert set(re.findall(r"\]\(#([\w-]+)\)", README)) <= headings
