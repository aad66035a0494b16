"""What the egress of one sandbox goes by, and what is noted of each connection."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from appliance.config.sandbox_schema import EgressConfig
from appliance.config.sandbox_schema import EgressRule as RuleConfig
from appliance.model.egress import EgressRule, EgressRules, HostPattern, Injection

# Finds a stored credential's secret by its name.
Credentials = Callable[[str], str | None]


def no_credentials(_: str) -> str | None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressSettings:
    rules: EgressRules
    credentials: Credentials = no_credentials
    allow_private: bool = False
    max_connections: int = 32  # at once
    max_bytes: int = 2048 * 1024 * 1024  # both ways, of all connections together
    idle_timeout: float = 120.0  # seconds

    @classmethod
    def of(
        cls, config: EgressConfig, *, credentials: Credentials = no_credentials
    ) -> "EgressSettings":
        """What a tenant's effective config says, within the operator's bound."""
        only = None if config.only is None else map(HostPattern, config.only)
        return cls(
            rules=EgressRules(tuple(map(_rule, config.allow))).bounded(only),
            credentials=credentials,
            allow_private=config.allow_private,
            max_connections=config.max_connections,
            max_bytes=config.max_bytes,
            idle_timeout=config.idle_timeout,
        )


class Verdict(StrEnum):
    PASSED = "passed"
    REFUSED = "refused"  # by a rule, or because of what was sent
    LIMITED = "limited"  # a limit was reached
    FAILED = "failed"  # the server, or the network


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressRecord:
    """What is noted of one connection: never a path, a header or a body."""

    host: str  # "" where none could be read
    port: int
    sent_bytes: int
    received_bytes: int
    seconds: float
    verdict: Verdict
    reason: str = ""


def _rule(config: RuleConfig) -> EgressRule:
    injected = config.credential
    return EgressRule(
        host=HostPattern(config.host),
        ports=frozenset(config.ports),
        methods=None
        if config.methods is None
        else frozenset(method.upper() for method in config.methods),
        injection=None
        if injected is None
        else Injection(injected.name, injected.header, injected.prefix),
        max_bytes=config.max_bytes,
    )
