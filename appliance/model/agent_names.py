"""How requests name agents as models: ``openclaw``, ``openclaw:<agent>``, ``openclaw/<agent>``."""

from appliance.model.session_keys import DEFAULT_AGENT

AGENT_MODEL = "openclaw"
_DEFAULT = "default"  # what OpenClaw's clients call the default agent


def agent_of(model: str) -> str | None:
    """The agent that ``model`` names, None for a model of a provider.

    ``openclaw`` is the default agent; ``openclaw:<agent>`` and
    ``openclaw/<agent>`` name one.
    """
    if model == AGENT_MODEL:
        return DEFAULT_AGENT
    if not model.startswith((f"{AGENT_MODEL}:", f"{AGENT_MODEL}/")):
        return None
    name = model[len(AGENT_MODEL) + 1 :]
    return DEFAULT_AGENT if name == _DEFAULT else name


def names_of(agent: str) -> tuple[str, ...]:
    """All the names of an agent, the shortest first."""
    ids = (agent, _DEFAULT) if agent == DEFAULT_AGENT else (agent,)
    names = tuple(f"{AGENT_MODEL}{mark}{each}" for each in ids for mark in ":/")
    return (AGENT_MODEL, *names) if agent == DEFAULT_AGENT else names
