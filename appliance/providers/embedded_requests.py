"""What an embedded model is asked: a request in the words of its worker's server.

The server (llama.cpp's) knows much more than may be asked for, some of it dear
or dangerous (grammars without bounds, answers without end, other slots'
caches), and passes over what it cannot do. So everything is looked at here,
before the model is waited for.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from appliance.model.calls import Dialect, ModelCall
from appliance.model.errors import Fault, InvalidRequest
from appliance.model.prompts import (
    Attachment,
    Block,
    Message,
    Prompt,
    Refusal,
    Result,
    Text,
    ToolChoice,
)
from appliance.protocols import request_members as members
from appliance.protocols.openai_prompts import HARMLESS, HINTS
from appliance.protocols.translation import read_prompt, write_body
from appliance.providers.embedded_schemas import require_bounded, require_possible

USUAL_ANSWER = 512  # tokens, where the caller sets no limit
_MOST_BIASES = 1000  # tokens of a logit_bias: each is looked at for each token of the answer
_RANDOM_SEED = 2**32 - 1  # llama.cpp takes another one each time
_KNOWN = frozenset(
    {
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "min_p",
        "model",
        "presence_penalty",
        "repeat_penalty",
        "repetition_penalty",
        "response_format",
        "seed",
        "stop",
        "stream",
        "stream_options",
        "temperature",
        "tool_choice",
        "tools",
        "top_k",
        "top_logprobs",
        "top_p",
    }
)
_HINTS = HINTS | {"parallel_tool_calls", "reasoning_effort", "user", "verbosity"}
# llama.cpp brings some of these into its own range, or makes nonsense of them.
_RANGES: Mapping[str, tuple[float, float]] = {
    "frequency_penalty": (-2, 2),
    "min_p": (0, 1),
    "presence_penalty": (-2, 2),
    "repeat_penalty": (0.1, 10),
    "repetition_penalty": (0.1, 10),
    "temperature": (0, 2),
    "top_k": (0, 1_000_000),
    "top_logprobs": (0, 20),
    "top_p": (0, 1),
}
_BIAS = (-100, 100)


def worded(call: ModelCall, *, context_tokens: int) -> ModelCall:
    """The same call in the words of the worker's server.

    Raises :exc:`InvalidRequest` naming, in the caller's words, what an embedded
    model cannot do.
    """
    if call.dialect is Dialect.OPENAI:
        members.refuse_unknown(call.body, known=_KNOWN | _HINTS, harmless=HARMLESS)
    prompt = read_prompt(call.dialect, call.body)
    _refuse_attachments(prompt)
    written = write_body(Dialect.OPENAI, _asked(prompt, stream=call.stream))
    members.refuse_unknown(written, known=_KNOWN | _HINTS, harmless=HARMLESS)
    body = {name: value for name, value in written.items() if name in _KNOWN}
    body |= _sampling(body)
    # Small models wander at any other temperature.
    body.setdefault("temperature", b"0")
    # A cached prefix would tell one tenant, by the time it takes, what another asked.
    body["cache_prompt"] = b"false"
    limit = min(call.output_limit or prompt.output_limit or USUAL_ANSWER, context_tokens)
    return replace(call, body=body, dialect=Dialect.OPENAI, output_limit=limit, headers={})


def _refuse_attachments(prompt: Prompt) -> None:
    for block in _blocks(prompt.messages):
        if isinstance(block, Attachment):
            raise InvalidRequest.at(
                block.at,
                f"is {_KINDS[block.kind]}: this model reads text only",
                "leave it out, or use another model",
                fault=Fault.UNSUPPORTED,
            )


_KINDS = {"audio": "sound", "file": "a file", "image": "an image"}


def _blocks(messages: Iterable[Message]) -> Iterator[Block]:
    for message in messages:
        for block in message.blocks:
            yield block
            if isinstance(block, Result):
                yield from block.parts


def _asked(prompt: Prompt, *, stream: bool) -> Prompt:
    """``prompt`` with what the server passes over said in another way, or refused."""
    tools = prompt.require_functions()
    prompt.require_choice()
    choice = prompt.choice or ToolChoice(mode="auto")
    if choice.mode == "none":
        tools = ()
    elif tools and choice.mode != "auto":
        # Tried: it answers in prose, with templates for tools as well.
        raise InvalidRequest.at(
            prompt.named("choice"),
            "this model cannot be held to a call of a tool",
            "leave it out, or use another model",
            fault=Fault.UNSUPPORTED,
        )
    elif choice.names:
        tools = tuple(tool for tool in tools if tool.name in choice.names)
    for tool in tools:
        require_bounded(tool.parameters or {}, field=tool.at)
    if prompt.format is not None and prompt.format.schema is not None:
        require_possible(prompt.format.schema, field=prompt.named("format"))
    if "" in prompt.stops:
        raise InvalidRequest.at(prompt.named("stops"), "holds an empty text")
    likely = prompt.top_logprobs
    if likely is not None and tools and stream:
        raise InvalidRequest.at(
            prompt.named("top_logprobs"),
            "this model does not tell them in a stream beside tools",
            "leave one of them out",
            fault=Fault.UNSUPPORTED,
        )
    return replace(
        prompt,
        messages=tuple(map(_heard, prompt.messages)),
        tools=tools,
        choice=None,
        # Asked for none beside the token itself, the server tells nothing at all.
        top_logprobs=None if likely is None else max(1, likely),
        seed=None if prompt.seed is None else prompt.seed % _RANDOM_SEED,
    )


def _heard(message: Message) -> Message:
    """A refusal as words of the answer: the server knows no others."""
    blocks = tuple(
        Text(text=each.text, at=each.at) if isinstance(each, Refusal) else each
        for each in message.blocks
    )
    return replace(message, blocks=blocks)


def _sampling(body: dict[str, bytes]) -> dict[str, bytes]:
    """Check how tokens are to be chosen; return what goes by another name there."""
    for name, (least, most) in _RANGES.items():
        _check(name, members.read_member(body, name), least, most)
    bias: Any = members.optional_object(members.read_member(body, "logit_bias"), "logit_bias")
    if bias and len(bias) > _MOST_BIASES:
        raise InvalidRequest.at("logit_bias", f"has more than {_MOST_BIASES} tokens")
    for value in (bias or {}).values():
        _check("logit_bias", value, *_BIAS)
    other = body.pop("repetition_penalty", None)
    if other is None:
        return {}
    if "repeat_penalty" in body:
        raise InvalidRequest.at("repetition_penalty", "is repeat_penalty as well", "leave one out")
    return {"repeat_penalty": other}


def _check(name: str, value: object, least: float, most: float) -> None:
    number = members.optional_number(value, name)
    if number is not None and not least <= number <= most:
        raise InvalidRequest.at(name, f"must lie between {least} and {most}")
