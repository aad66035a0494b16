"""How likely the tokens of an answer were, as the Responses API tells it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from appliance.model.calls import Delta, LogprobsDelta, TextDelta
from appliance.protocols.responses.items import Item


@dataclass(frozen=True, slots=True)
class Likely:
    """Text with how likely its tokens were."""

    text: str
    tokens: Sequence[Mapping[str, Any]]


def paired(deltas: Sequence[Delta]) -> Iterator[Delta | Likely]:
    """Text and what follows about its tokens in one."""
    held: TextDelta | None = None
    for delta in deltas:
        if held is not None and type(delta) is LogprobsDelta:
            yield Likely(held.text, delta.tokens)
            held = None
            continue
        if held is not None:
            yield held
        held = delta if isinstance(delta, TextDelta) else None
        if held is None:
            yield delta
    if held is not None:
        yield held


def logprob_object(token: Mapping[str, Any]) -> Item:
    """A token as this API has it: its bytes and its rivals are lists, never null."""
    rivals = token.get("top_logprobs")
    found = _likelihood(token)
    listed = rivals if isinstance(rivals, list) else []
    found["top_logprobs"] = [_likelihood(each) for each in listed if isinstance(each, dict)]
    return found


def _likelihood(token: Mapping[str, Any]) -> Item:
    text, logprob, data = token.get("token"), token.get("logprob"), token.get("bytes")
    text = text if isinstance(text, str) else ""
    is_number = isinstance(logprob, int | float) and not isinstance(logprob, bool)
    return {
        "token": text,
        "logprob": logprob if is_number else 0.0,
        "bytes": data if isinstance(data, list) else list(text.encode("utf-8", "replace")),
    }
