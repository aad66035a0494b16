"""The gateway the clients talk to: one process, and the stub behind it in every dialect."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.system.processes import ADMIN_KEY, Gateway, launching

# Each provider is the same stub, asked in another dialect.
DIALECTS = ("chat", "responses", "messages", "ollama")

CONFIG = """\
server: {{drain_timeout: 2}}
providers:
  chat: {{dialect: openai, base_url: "http://127.0.0.1:{port}/v1", api_key: "env:STUB_KEY"}}
  responses:
    dialect: openai-responses
    base_url: "http://127.0.0.1:{port}/v1"
    api_key: "env:STUB_KEY"
  messages:
    dialect: anthropic
    base_url: "http://127.0.0.1:{port}/anthropic"
    api_key: "env:STUB_KEY"
  ollama: {{dialect: ollama, base_url: "http://127.0.0.1:{port}"}}
models:
  default: chat/assistant
  aliases: {{fast: chat/assistant, newest: responses/assistant}}
  rate_card:
    chat/assistant: {{input: "1.00", output: "2.00"}}
"""


@dataclass(frozen=True, slots=True)
class Serving:
    """A running gateway, and the tokens of tenants in three conditions."""

    gateway: Gateway
    token: str
    busy: str  # may ask once a minute
    poor: str  # has used up its month

    def environment(self) -> dict[str, str]:
        """What a client's test is told."""
        return {
            "GATEWAY_URL": self.gateway.url,
            "GATEWAY_TOKEN": self.token,
            "GATEWAY_BUSY_TOKEN": self.busy,
            "GATEWAY_POOR_TOKEN": self.poor,
            "GATEWAY_MODELS": ",".join(f"{dialect}/assistant" for dialect in DIALECTS),
        }


@contextmanager
def serving(home: Path, stub_port: int) -> Iterator[Serving]:
    with launching(home) as launcher:
        launcher.environ["STUB_KEY"] = "sk-client-tests-of-the-stub"
        launcher.configure(CONFIG.format(port=stub_port))
        gateway = launcher.serve()
        busy = _tenant(gateway, "busy", quotas={"requests_per_minute": 1})
        poor = _tenant(gateway, "poor", quotas={"tokens_per_month": 1})
        for token in (busy, poor):
            gateway.chat(token, "hello", model="chat/assistant")
        yield Serving(gateway, gateway.create_tenant("clients"), busy, poor)


def _tenant(gateway: Gateway, tenant: str, **body: Any) -> str:
    with gateway.client(ADMIN_KEY) as admin:
        answer = admin.post("/v1/tenants", json={"id": tenant, **body})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["token"])
