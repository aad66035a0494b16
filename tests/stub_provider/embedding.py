"""Vectors that depend on the text alone; they mean nothing."""

import hashlib
import struct
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

DIMENSIONS = 8


def openai(body: Mapping[str, Any]) -> dict[str, Any]:
    """Answer ``/v1/embeddings``: texts or arrays of tokens, floats or base64."""
    given = _several(body["input"])
    size = int(body.get("dimensions") or DIMENSIONS)
    vectors = [vector(each, size) for each in given]
    tokens = sum(map(_tokens, given))
    packed = body.get("encoding_format") == "base64"
    return {
        "object": "list",
        "model": body.get("model"),
        "data": [
            {
                "object": "embedding",
                "index": i,
                "embedding": pack(each) if packed else each,
            }
            for i, each in enumerate(vectors)
        ],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def ollama(body: Mapping[str, Any]) -> dict[str, Any]:
    """Answer ``/api/embed``. Ollama knows no arrays of tokens."""
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("invalid input type")
    size = int(body.get("dimensions") or DIMENSIONS)
    return {
        "model": body.get("model"),
        "embeddings": [vector(text, size) for text in texts],
        "prompt_eval_count": sum(map(_tokens, texts)),
    }


def vector(text: object, size: int = DIMENSIONS) -> list[float]:
    """``size`` numbers between 0 and 1, of which the first 32 tell texts apart."""
    digest = hashlib.sha256(str(text).encode()).digest()
    return [digest[i % len(digest)] / 255 for i in range(size)]


def pack(numbers: list[float]) -> str:
    """As the official clients want them: little-endian float32 in base64."""
    return b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def _several(given: Any) -> list[Any]:
    if isinstance(given, str) or (given and isinstance(given[0], int)):
        return [given]
    return list(given)


def _tokens(given: str | list[int]) -> int:
    return len(given.split()) if isinstance(given, str) else len(given)
