"""Ollama's embeddings."""

import json
from typing import Any

import pytest

from appliance.model.embeddings import EmbeddingCall, Numbers
from appliance.model.usage import TokenUsage
from appliance.protocols.answers import ErrorReported, MalformedAnswer
from appliance.protocols.ollama_embeddings import encode_request, read_answer

CALL = EmbeddingCall(model="mock", texts=("a", "b"))


def read(**members: Any) -> Any:
    body = {"model": "mock:latest", "embeddings": [[1, 2], [3, 4]], **members}
    return read_answer(json.dumps(body).encode(), CALL)


def test_what_is_too_long_is_not_cut_unasked() -> None:
    sized = EmbeddingCall(model="mock", texts=("a",), dimensions=8, user="u")

    assert json.loads(encode_request(CALL)) == {
        "model": "mock",
        "input": ["a", "b"],
        "truncate": False,
    }
    assert json.loads(encode_request(sized))["dimensions"] == 8


def test_an_answer_is_read() -> None:
    found = read(prompt_eval_count=5)

    assert found.vectors == [Numbers(b"[1, 2]"), Numbers(b"[3, 4]")]
    assert (found.model, found.usage, found.dimensions) == (
        "mock:latest",
        TokenUsage(input=5),
        2,
    )


def test_usage_may_be_missing() -> None:
    assert read().usage is None
    assert read(prompt_eval_count=0).usage is None


@pytest.mark.parametrize(
    "embeddings", [[], [[1]], [[1], [1, 2]], [["a"], ["b"]], None, "x", [[1], [1], [1]]]
)
def test_what_is_not_whole_is_no_answer(embeddings: Any) -> None:
    with pytest.raises(MalformedAnswer):
        read(embeddings=embeddings)


def test_an_error_is_read() -> None:
    with pytest.raises(ErrorReported):
        read_answer(b'{"error":"model not found"}', CALL)
