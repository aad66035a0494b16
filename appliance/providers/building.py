"""Makes a provider from its section of the config."""

from collections.abc import Callable, Mapping
from datetime import datetime
from urllib.parse import urlsplit

from appliance import dialling
from appliance.config.schema import ProviderConfig
from appliance.dialling import Dial
from appliance.model.errors import ConfigInvalid
from appliance.protocols.openai_chat import MaxTokensField
from appliance.providers.anthropic import AnthropicWire
from appliance.providers.connections import ConnectionPool
from appliance.providers.http_provider import HttpProvider, Wire
from appliance.providers.ollama import OllamaWire
from appliance.providers.openai import OpenAiWire
from appliance.providers.openai_responses import ResponsesWire

_BASE_URLS: Mapping[str, str] = {
    "openai": "https://api.openai.com/v1",
    "openai-responses": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "ollama": "http://127.0.0.1:11434",
}
# Part of these dialects' paths; people write them into the base URL or do not.
_VERSION_PATHS: Mapping[str, tuple[str, ...]] = {"anthropic": ("/v1",), "ollama": ("/api", "/v1")}
_OPENAI = "api.openai.com"  # and what ends with it: the regions have hosts of their own
_DEFAULT_PORTS = {"http": 80, "https": 443}


def build_http_provider(
    name: str,
    config: ProviderConfig,
    *,
    api_key: str | None,
    clock: Callable[[], datetime],
    public_only: bool = False,
    dial: Dial | None = None,
) -> HttpProvider:
    """Build a provider reached over HTTP; ``api_key`` is the resolved secret.

    ``public_only`` is for a base URL that a tenant chose: it must lead to a
    public address. ``dial`` replaces how connections are made. Raises
    :exc:`ConfigInvalid` for what cannot work; nothing is connected to yet.
    """
    base_url = (config.base_url or _BASE_URLS.get(config.dialect, "")).rstrip("/")
    for path in _VERSION_PATHS.get(config.dialect, ()):
        base_url = base_url.removesuffix(path)
    url = urlsplit(base_url)
    host = url.hostname
    wire = _wire(name, config, host=host or "")
    if url.scheme not in _DEFAULT_PORTS or not host:
        raise ConfigInvalid.at(
            f"providers.{name}.base_url", "is no URL", "write http://host/path or https://host/path"
        )
    if dial is None:
        port = url.port or _DEFAULT_PORTS[url.scheme]
        dial = dialling.tcp(host, port, tls=url.scheme == "https", public_only=public_only)
    pool = ConnectionPool(
        dial, limit=config.max_connections, connect_timeout=config.connect_timeout
    )
    return HttpProvider(
        name,
        wire,
        pool,
        base_url=base_url,
        clock=clock,
        api_key=api_key,
        headers=config.headers,
        models=config.models,
        request_timeout=config.request_timeout,
        stream_idle_timeout=config.stream_idle_timeout,
    )


def _wire(name: str, config: ProviderConfig, *, host: str) -> Wire:
    match config.dialect:
        case "openai":
            # All of OpenAI's own models know the new name, and the latest only that one.
            is_openai = f".{host}".endswith(f".{_OPENAI}")
            usual: MaxTokensField | None = "max_completion_tokens" if is_openai else None
            return OpenAiWire(max_tokens_field=config.max_tokens_field or usual)
        case "anthropic":
            return AnthropicWire()
        case "ollama":
            return OllamaWire()
        case "openai-responses":
            return ResponsesWire()
        case "embedded":
            raise ConfigInvalid.at(
                f"providers.{name}.dialect",
                "embedded is a process of ours, not an address",
                "build it with EmbeddedProvider",
            )
