"""What must hold between the keys of a gateway config."""

from collections.abc import Iterator

from appliance.config.fields import is_loopback, parse_bind, split_model
from appliance.config.overlay import overlay_problems
from appliance.config.schema import GatewayConfig, ProviderConfig, ServerConfig
from appliance.model.errors import FieldError
from appliance.model.spelling import nearest


def broken_rules(config: GatewayConfig) -> Iterator[FieldError]:
    """Yield what contradicts itself in a config whose single values are all valid."""
    yield from _server(config.server)
    for name, provider in config.providers.items():
        yield from _provider(f"providers.{name}", provider)
    yield from _names(config)
    for name, template in config.templates.items():
        yield from overlay_problems(template.config, path=f"templates.{name}.config")


def exposure_problem(server: ServerConfig, *, bind: str | None = None) -> FieldError | None:
    """Why listening on ``bind`` (else ``server.bind``) would put tokens on the wire in clear.

    ``serve --bind`` asks again, since it overrides the file.
    """
    host, _ = parse_bind(bind or server.bind)
    if is_loopback(host) or server.tls is not None or server.behind_proxy:
        return None
    return FieldError(
        "server.bind",
        f"{host} can be reached by others, and without TLS they could read every token",
        "set server.tls, or server.behind_proxy: true where a proxy in front ends TLS",
    )


def _server(server: ServerConfig) -> Iterator[FieldError]:
    exposed = exposure_problem(server)
    if exposed is not None:
        yield exposed
    seen: set[str] = set()
    for index, key in enumerate(server.admin_keys):
        if key.label in seen:
            yield FieldError(
                f"server.admin_keys[{index}].label", "given twice", "the audit log tells them apart"
            )
        seen.add(key.label)
    if server.trusted_proxies and not server.behind_proxy:
        yield FieldError(
            "server.trusted_proxies", "has no effect alone", "set server.behind_proxy: true"
        )


def _provider(path: str, provider: ProviderConfig) -> Iterator[FieldError]:
    embedded = provider.dialect == "embedded"
    for key in ("base_url", "api_key", "api_keys"):
        if embedded and getattr(provider, key):
            yield FieldError(
                f"{path}.{key}", "an embedded model runs beside the gateway", "drop it"
            )
    for key in ("model_path", "embedding_model_path"):
        if not embedded and getattr(provider, key) is not None:
            yield FieldError(
                f"{path}.{key}", "is only for dialect embedded", "set dialect: embedded or drop it"
            )


def _names(config: GatewayConfig) -> Iterator[FieldError]:
    models = config.models
    for alias, target in models.aliases.items():
        yield from _known_provider(config, f"models.aliases.{alias}", target)
    for name, targets in models.failover.items():
        # A chain may have a name of its own, which is then as good as an alias.
        if "/" in name:
            yield from _known_provider(config, f"models.failover.{name}", name)
        for index, target in enumerate(targets):
            yield from _known_provider(config, f"models.failover.{name}[{index}]", target)
    yield from _balanced(config)
    for name in models.timeouts:
        yield from _known_model(config, f"models.timeouts.{name}", name)
    for model in models.rate_card:
        yield from _known_provider(config, f"models.rate_card.{model}", model)
    for key in ("default", "embedding"):
        if (name := getattr(models, key)) is not None:
            yield from _known_model(config, f"models.{key}", name)
    for agent_id, agent in config.defaults.agents.items():
        if agent.model is not None:
            yield from _known_model(config, f"defaults.agents.{agent_id}.model", agent.model)


def _balanced(config: GatewayConfig) -> Iterator[FieldError]:
    for name, balanced in config.models.balance.items():
        for index, each in enumerate(balanced):
            path = f"models.balance.{name}[{index}].model"
            yield from _known_provider(config, path, each.model)
        if name in config.models.aliases:
            yield FieldError(
                f"models.balance.{name}", "is an alias already", "drop it from models.aliases"
            )


def _known_model(config: GatewayConfig, path: str, name: str) -> Iterator[FieldError]:
    known = [*config.models.aliases, *config.models.failover, *config.models.balance]
    if "/" in name:
        yield from _known_provider(config, path, name)
    elif name not in known:
        yield FieldError(path, f"{name!r} is no alias", _suggestion(name, known, "models.aliases"))


def _known_provider(config: GatewayConfig, path: str, model: str) -> Iterator[FieldError]:
    parts = split_model(model)
    provider = parts[0] if parts else model
    if provider not in config.providers:
        yield FieldError(
            path,
            f"no provider is called {provider!r}",
            _suggestion(provider, list(config.providers), "providers"),
        )


def _suggestion(word: str, known: list[str], section: str) -> str:
    near = nearest(word, known)
    return f"did you mean {near!r}?" if near else f"define it under {section}"
