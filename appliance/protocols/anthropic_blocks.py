"""The blocks of an answer of Anthropic's, read into deltas.

New kinds of blocks and deltas may appear at any time and are skipped, as the
API's versioning policy asks.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from appliance.model.calls import Delta, ReasoningDelta, ReasoningSeal, TextDelta, ToolCallDelta
from appliance.protocols.answers import MalformedAnswer

_KINDS = frozenset({"text", "thinking", "redacted_thinking", "tool_use"})


class BlockReader:
    """Reads the blocks of one answer."""

    __slots__ = ("_others", "_seals", "_tools")

    def __init__(self) -> None:
        self._others: set[int] = set()  # blocks of kinds that are skipped
        # Block number → our number of the tool call, and whether arguments came.
        self._tools: dict[int, tuple[int, bool]] = {}
        self._seals: dict[int, str] = {}  # block number → signature so far

    def begin(self, index: int, block: Mapping[str, Any]) -> Iterator[Delta]:
        match block:
            case {"type": "text", "text": str(text)} if text:
                yield TextDelta(text)
            case {"type": "thinking", "thinking": str(text)}:
                if text:
                    yield ReasoningDelta(text)
                self._sign(index, block)
            case {"type": "redacted_thinking", "data": str(data)} if data:
                yield ReasoningSeal(hidden=data)
            case {"type": "tool_use", "id": str(id_), "name": str(name)}:
                number = len(self._tools)
                given = block.get("input")
                # Usually empty here, with the arguments to follow in pieces.
                whole = msgspec.json.encode(given).decode() if given else ""
                self._tools[index] = (number, bool(whole))
                yield ToolCallDelta(number, id=id_, name=name, arguments=whole)
            case {"type": str(kind)} if kind not in _KINDS:
                self._others.add(index)

    def go_on(self, index: int, delta: Mapping[str, Any]) -> Iterator[Delta]:
        match delta:
            case {"type": "text_delta", "text": str(text)}:
                yield TextDelta(text)
            case {"type": "thinking_delta", "thinking": str(text)}:
                yield ReasoningDelta(text)
            case {"type": "signature_delta"}:
                self._sign(index, delta)
            case {"type": "input_json_delta", "partial_json": str(text)}:
                yield from self._arguments(index, text)

    def end(self, index: int) -> Iterator[Delta]:
        if signature := self._seals.pop(index, ""):
            yield ReasoningSeal(signature=signature)
        number, has_arguments = self._tools.get(index, (0, True))
        if not has_arguments:
            # A call without arguments has none to send; OpenAI's clients parse the text.
            self._tools[index] = (number, True)
            yield ToolCallDelta(number, arguments="{}")

    def _sign(self, index: int, piece: Mapping[str, Any]) -> None:
        if isinstance(signature := piece.get("signature"), str) and signature:
            self._seals[index] = self._seals.get(index, "") + signature

    def _arguments(self, index: int, text: str) -> Iterator[Delta]:
        if index in self._others:
            return  # of a tool that the provider itself runs
        if index not in self._tools:
            raise MalformedAnswer("it sent arguments for no tool call")
        number, _ = self._tools[index]
        if text:
            self._tools[index] = (number, True)
            yield ToolCallDelta(number, arguments=text)
