"""From any caller's dialect to any provider's, through one model that both are read into."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from appliance.model.calls import Dialect, ModelCall
from appliance.model.prompts import Prompt
from appliance.protocols import anthropic_prompts, ollama_prompts, openai_prompts
from appliance.protocols.earlier_thoughts import without_foreign_thoughts
from appliance.protocols.responses import prompts as responses_prompts

Body = Mapping[str, bytes]  # a request's top-level members as JSON text

# Nobody asks us in the words of Ollama. The embedded model is asked in OpenAI's.
_READ: Mapping[Dialect, Callable[[Body], Prompt]] = {
    Dialect.OPENAI: openai_prompts.read_prompt,
    Dialect.RESPONSES: responses_prompts.read_prompt,
    Dialect.ANTHROPIC: anthropic_prompts.read_prompt,
}
_WRITE: Mapping[Dialect, Callable[[Prompt], Body]] = {
    Dialect.OPENAI: openai_prompts.write_body,
    Dialect.RESPONSES: responses_prompts.write_body,
    Dialect.ANTHROPIC: anthropic_prompts.write_body,
    Dialect.OLLAMA: ollama_prompts.write_body,
}
# Characters that ``user`` may have there. Agents name sessions by it, and so keep all of it.
_LONGEST_USER: Mapping[Dialect, int] = {
    Dialect.OPENAI: 64,
    Dialect.RESPONSES: 64,
    Dialect.ANTHROPIC: 256,
}


def read_prompt(dialect: Dialect, body: Body) -> Prompt:
    """Read a request; raise :exc:`InvalidRequest` naming what cannot be understood."""
    return _READ[dialect](body)


def write_body(dialect: Dialect, prompt: Prompt) -> Body:
    """Write a request, but for the model's name, the limit and how the answer travels.

    Raises :exc:`InvalidRequest` naming, in the caller's words, what this
    dialect has none for.
    """
    return _WRITE[dialect](prompt)


def translated(call: ModelCall, dialect: Dialect) -> ModelCall:
    """The same call in the words of ``dialect``.

    The call itself where it is in them already, but for thoughts of other providers.
    """
    if call.dialect is dialect:
        return without_foreign_thoughts(call)
    prompt = read_prompt(call.dialect, call.body)
    if dialect in _LONGEST_USER:
        prompt = prompt.with_short_user(_LONGEST_USER[dialect])
    limit = call.output_limit if call.output_limit is not None else prompt.output_limit
    body = write_body(dialect, prompt)
    return replace(call, body=body, dialect=dialect, output_limit=limit, headers={})
