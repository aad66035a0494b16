"""Text of a gateway config to frozen values, and the text that ``init`` writes."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import msgspec

from appliance.config.checking import default_of, first_problems, keys_of
from appliance.config.documents import MOST_PROBLEMS, invalid, scan_document, write_document
from appliance.config.rules import broken_rules
from appliance.config.schema import AdminKeyConfig, GatewayConfig, Section
from appliance.model.errors import FieldError


def parse_config(text: str, *, name: str) -> GatewayConfig:
    """Read a gateway config.

    Raises :exc:`ConfigInvalid` whose text names ``name`` and, for each thing
    that is wrong, the line, the key, the reason and the way out.
    """
    document, problems = scan_document(text, name=name)
    raw = document.value
    if not isinstance(raw, Mapping):
        reason = "the file is empty" if raw is None else "expected a mapping of settings"
        raise invalid(name, [FieldError("", reason, "openclawmu init writes one to start from")])
    problems += first_problems(raw, GatewayConfig)
    if problems:
        raise invalid(name, problems, document.lines)
    config = _convert(raw, name)
    problems = list(islice(broken_rules(config), MOST_PROBLEMS))
    if problems:
        raise invalid(name, problems, document.lines)
    return config


def render_config(config: GatewayConfig) -> str:
    """``config`` as YAML, without what is as by default."""
    return write_document(_written(config))


def default_config_text(
    *, admin_keys: Sequence[AdminKeyConfig], bind: str | None = None, embedded: bool = True
) -> str:
    """The commented ``config.yaml`` that ``init`` writes.

    With ``embedded`` the small built-in model answers until a better one is
    configured.
    """
    keys = "".join(
        f"    - {{label: {_scalar(key.label)}, hash: {_scalar(key.hash)}}}\n" for key in admin_keys
    )
    return _TEMPLATE.format(
        bind=_scalar(bind or GatewayConfig().server.bind),
        admin_keys=f"\n{keys}".rstrip("\n") if keys else " []",
        providers=_EMBEDDED if embedded else "providers: {}\n",
        default="embedded/smollm2-135m" if embedded else "null",
    )


def _convert(raw: Mapping[str, Any], name: str) -> GatewayConfig:
    # What find_problems lets through converts; if the two ever disagree, the
    # operator still gets a message and not a traceback.
    try:
        return msgspec.convert(raw, GatewayConfig)
    except msgspec.ValidationError as exc:
        raise invalid(name, [FieldError("", str(exc))]) from exc


def _written(value: object) -> object:
    """``value`` as plain values, without the keys of a section that are as by default."""
    match value:
        case Section():
            return {
                key: _written(own)
                for key, info in keys_of(type(value)).items()
                if (own := getattr(value, info.name)) != default_of(info)
            }
        case Mapping():
            return {key: _written(below) for key, below in value.items()}
        case list():
            return [_written(item) for item in value]
        case _:
            return value


def _scalar(text: str) -> str:
    """``text`` in double quotes; JSON's quoting is valid YAML."""
    return msgspec.json.encode(text).decode()


_EMBEDDED = """\
providers:
  # A model of 135 million parameters that needs no key and no network: proof
  # that everything works, not an assistant. Plug in a real one like this:
  #   openai: {dialect: openai, api_key: "env:OPENAI_API_KEY"}
  #   claude: {dialect: anthropic, api_key: "cred:anthropic"}
  #   local:  {dialect: ollama, base_url: "http://127.0.0.1:11434"}
  embedded: {dialect: embedded}
"""

_TEMPLATE = """\
# The gateway's configuration; docs/configuration.md explains every key.
# A change takes effect within a second. A file with a mistake in it is not
# taken: the last good one stays in force, and the log, /readyz and
# "openclawmu doctor" say what is wrong.

server:
  bind: {bind}
  # Only hashes of admin keys are kept here.
  admin_keys:{admin_keys}

{providers}
models:
  # What agent "main" uses: provider/model, or an alias.
  default: {default}
  # aliases:   {{fast: openai/gpt-4o-mini}}
  # failover:  {{fast: [openai/gpt-4o-mini, local/llama3.2]}}
  # Per million tokens, as decimals in quotes. Without an entry the price list
  # that comes with the gateway holds.
  # rate_card: {{"openai/gpt-4o-mini": {{input: "0.15", output: "0.60"}}}}

# What each tenant gets unless it has limits of its own; null is unlimited, 0 is none.
quotas: {{}}
#  requests_per_minute: 600
#  cost_per_month: "50.00"

billing:
  currency: USD
"""
