"""Good answers: what each dialect's provider says when all is well."""

from collections.abc import Callable, Mapping
from typing import Any

from tests.stub_provider import frames, speaking
from tests.stub_provider.asked import Asked, Dialect
from tests.stub_provider.assistant import Speech
from tests.stub_provider.frames import Answer, encode


def good(asked: Asked) -> Answer:
    if asked.dialect == "responses":
        said = Speech(asked.text, finish="length" if asked.is_cut_off else "stop")
        return speaking.answer(asked, said, {})
    if asked.stream:
        pieces = _STREAMS[asked.dialect](asked)
        kind = "application/x-ndjson" if asked.dialect == "ollama" else "text/event-stream"
        return Answer(pieces, kind)
    return Answer((encode(_WHOLES[asked.dialect](asked)),))


_STREAMS: Mapping[Dialect, Callable[[Asked], tuple[bytes, ...]]] = {
    "openai": frames.openai_stream,
    "anthropic": frames.anthropic_stream,
    "ollama": frames.ollama_stream,
}
_WHOLES: Mapping[Dialect, Callable[[Asked], dict[str, Any]]] = {
    "openai": frames.openai_whole,
    "anthropic": frames.anthropic_whole,
    "ollama": frames.ollama_whole,
}
