"""docs/gateway.md, docs/sessions.md and docs/security.md are kept true."""

import gc
import importlib
import pkgutil
import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

import appliance
from appliance.config.schema import WebSocketConfig
from appliance.model.chat_commands import COMMANDS, Command
from appliance.model.errors import ApplianceError, Unavailable
from appliance.model.message_queue import QueueMode
from appliance.model.operator_scopes import OperatorScope
from appliance.model.tokens import Scope
from appliance.protocols import handshake_refusals, jsonrpc
from appliance.protocols.connect import ConnectInvalid
from appliance.protocols.device_identity import DeviceFault
from appliance.protocols.gateway import WireError
from appliance.protocols.handshake_refusals import HandshakeRefusal
from appliance.services.events import Audience
from appliance.transports.rpc import failures
from appliance.transports.rpc.table import METHODS
from appliance.transports.websocket.hello import EVENTS
from tests.gateway.conftest import Gateway, Tenant

DOCS = Path(__file__).resolve().parents[2] / "docs"
GATEWAY = (DOCS / "gateway.md").read_text()
SESSIONS = (DOCS / "sessions.md").read_text()
SECURITY = (DOCS / "security.md").read_text()

Main = Callable[[str, str], Awaitable[None]]


@pytest.fixture
def example() -> Main:
    """The client that the manual shows, as a reader would run it."""
    source = GATEWAY.partition("```python\n")[2].partition("```")[0]
    found: dict[str, Any] = {"__name__": "example"}
    exec(compile(source, "gateway.md", "exec"), found)  # noqa: S102 - it is our own manual
    main: Main = found["main"]
    return main


@pytest.mark.parametrize("path", ["/", "/ws", "/t/acme/ws"])
async def test_the_client_in_the_manual_gets_an_answer(
    gateway: Gateway,
    acme: Tenant,
    example: Main,
    path: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with trio.fail_after(60):
        await example(f"ws://127.0.0.1:{gateway.port}{path}", acme.token)

    assert capsys.readouterr().out.strip()


# Where the server hangs up first, the client's library may leave its socket to the
# collector, which must not find it in somebody else's test.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
async def test_the_client_in_the_manual_says_what_is_wrong(
    gateway: Gateway, acme: Tenant, example: Main
) -> None:
    with pytest.raises(RuntimeError, match="token mismatch"):
        await example(f"ws://127.0.0.1:{gateway.port}/", acme.token[:-4] + "AAAA")
    gc.collect()


def kinds_of_failures(kind: type[ApplianceError]) -> Iterator[type[ApplianceError]]:
    for each in kind.__subclasses__():
        yield each
        yield from kinds_of_failures(each)


def test_the_manual_has_every_failure_of_ours() -> None:
    for module in pkgutil.walk_packages(appliance.__path__, "appliance."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found = {each for each in kinds_of_failures(ApplianceError) if hasattr(each, "code")}
    ours = {each for each in found if each.__module__.startswith("appliance.")}

    assert len(ours) > 30
    for each in ours:
        assert f"`{each.code.replace('-', '_').upper()}`" in GATEWAY, each


def details_code(said: WireError | HandshakeRefusal) -> str | None:
    code = (said.details or {}).get("code")
    return None if code is None else str(code)


def all_that_is_said(protocol: int) -> list[WireError | HandshakeRefusal]:
    """Every refusal that does not come from a failure of ours."""
    refused = handshake_refusals
    return [
        failures.error_of(ValueError("a bug"), protocol=protocol),
        failures.error_of(Unavailable("x"), protocol=protocol),
        failures.unknown_method("x"),
        failures.missing_scope(OperatorScope.READ, protocol=protocol),
        failures.wrong_role("node", protocol=protocol),
        failures.needs_admin("x", protocol=protocol),
        failures.needs_tenant("x", protocol=protocol),
        failures.not_yet("x"),
        failures.too_many_in_flight(1),
        refused.token_mismatch(protocol),
        refused.device_token_mismatch(protocol),
        refused.token_missing(protocol),
        refused.device_required(),
        *(refused.device_rejected(fault, protocol) for fault in DeviceFault),
        refused.pairing_required("x", protocol=protocol),
        refused.protocol_mismatch(1, 2),
        refused.invalid_params(ConnectInvalid("/x", "must be object")),
        refused.not_connect(),
        refused.origin_not_allowed(protocol),
        refused.rate_limited(1, protocol),
        refused.too_many_connections(1),
        refused.shutting_down(),
    ]


@pytest.mark.parametrize("protocol", [3, 4])
def test_the_manual_has_every_code_of_a_refusal(protocol: int) -> None:
    for said in all_that_is_said(protocol):
        assert f"`{said.code}`" in GATEWAY
        code = details_code(said)
        assert code is None or f"`{code}`" in GATEWAY
        if isinstance(said, HandshakeRefusal):
            assert re.search(rf"^\| .*\b{said.close_code}\b", GATEWAY, re.MULTILINE)


def test_no_refusal_is_left_out_here() -> None:
    source = Path(failures.__file__).read_text() + Path(handshake_refusals.__file__).read_text()
    written = set(re.findall(r'"([A-Z][A-Z_]{2,})"', source))
    said = [each for protocol in (3, 4) for each in all_that_is_said(protocol)]
    ours = {each.code for each in said} | {details_code(each) for each in said}

    assert written - {"FORBIDDEN", "NOT_FOUND"} <= ours


def test_the_manual_has_every_number_of_json_rpc() -> None:
    numbers = {
        jsonrpc.PARSE_ERROR, jsonrpc.METHOD_UNKNOWN, jsonrpc.PARAMS_INVALID,
        *jsonrpc.NUMBERS.values(),
    }  # fmt: skip

    for number in numbers:
        assert f"| {number} |" in GATEWAY


def rows(text: str, heading: str) -> list[str]:
    """The first column of the table below a heading."""
    section = re.split(r"^#", text.partition(f"{heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def test_the_manual_has_every_event_and_no_other() -> None:
    assert sorted(rows(GATEWAY, "## Events")) == sorted(EVENTS)


def test_every_audience_of_an_event_is_one_that_the_manual_knows() -> None:
    known = {"everyone", "readers", "pairing", "session-list", "session"}
    later = {"approvers", "nodes", "tool-watchers"}  # no event is for them yet

    assert {audience.value for audience in Audience} == known | later


def test_the_manual_has_every_limit_and_no_other() -> None:
    limits = {field.encode_name for field in msgspec.structs.fields(WebSocketConfig)}

    assert set(rows(GATEWAY, "## Limits")) == limits


def test_the_manual_has_every_scope() -> None:
    assert set(rows(GATEWAY, "### Scopes")) == {scope.value for scope in Scope}
    for scope in OperatorScope:
        assert f"`{scope}`" in GATEWAY


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_the_manual_has_every_command(command: Command) -> None:
    usage = command.usage.replace("|", "\\|")

    assert f"| `{usage}` | {command.description} |" in SESSIONS


def test_the_manual_has_every_queue_mode() -> None:
    assert set(rows(SESSIONS, "## Queue modes")) == {mode.value for mode in QueueMode}


def test_the_manual_has_every_audited_action_of_a_method() -> None:
    actions = {method.audited for method in METHODS if method.audited and method.is_available}

    assert actions
    for action in actions:
        assert f"`{action}`" in SECURITY


@pytest.mark.parametrize("text", [GATEWAY, SESSIONS], ids=["gateway", "sessions"])
def test_every_method_that_is_named_exists(text: str) -> None:
    groups = {method.name.partition(".")[0] for method in METHODS if "." in method.name}
    names = {method.name for method in METHODS} | set(EVENTS)
    named = set(re.findall(r"`([a-z]+(?:\.[a-z]+)+)`", text))

    assert {name for name in named if name.partition(".")[0] in groups} <= names


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w-]", "", heading.lower().replace(" ", "-")) for heading in headings}


@pytest.mark.parametrize("text", [GATEWAY, SESSIONS], ids=["gateway", "sessions"])
def test_every_link_leads_somewhere(text: str) -> None:
    for page, anchor in re.findall(r"\]\(([a-z_]+\.md)?(?:#([\w-]+))?\)", text):
        target = (DOCS / page).read_text() if page else text

        assert not anchor or anchor in anchors(target)
