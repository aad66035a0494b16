"""Who is connected to a tenant."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from appliance.model.callers import ActorKind, Caller
from appliance.model.operator_scopes import EVERYTHING, OperatorScope, Role
from appliance.model.tokens import Scope
from appliance.services.clients import Client, ClientInfo, ConnectedClients

NOW = datetime(2026, 11, 22, tzinfo=UTC)
CALLER = Caller(ActorKind.TENANT, "tok_1", "acme", frozenset({Scope.FULL}))
INFO = ClientInfo(id="cli", mode="cli")


@dataclass
class Connection:
    """A client that remembers what it was told."""

    id: str
    node_id: str | None = None
    device_id: str | None = None
    protocol: int = 4
    role: Role = Role.OPERATOR
    caller: Caller = CALLER
    scopes: frozenset[OperatorScope] = EVERYTHING
    info: ClientInfo = INFO
    connected_at: datetime = NOW
    watches_sessions: bool = False
    watched_sessions: set[str] = field(default_factory=set)
    buffered: int = 0
    told: list[str] = field(default_factory=list)
    dropped: tuple[int, str] | None = None

    def send_event(self, name: str, payload: object) -> bool:
        self.told.append(name)
        return self.dropped is None

    def drop(self, code: int, reason: str) -> None:
        self.dropped = (code, reason)


def connected(*connections: Client) -> ConnectedClients:
    clients = ConnectedClients()
    for connection in connections:
        clients.add(connection)
    return clients


def test_clients_stand_in_the_order_they_came() -> None:
    clients = connected(Connection("b"), Connection("a"), Connection("c"))

    assert [client.id for client in clients] == ["b", "a", "c"]
    assert len(clients) == 3


def test_a_client_is_found_by_its_connection() -> None:
    one = Connection("a")
    clients = connected(one, Connection("b"))

    assert clients.find("a") is one
    assert clients.find("z") is None


def test_whoever_left_is_gone_and_may_leave_twice() -> None:
    one, other = Connection("a"), Connection("b")
    clients = connected(one, other)
    clients.discard(one)
    clients.discard(one)

    assert list(clients) == [other]
    assert clients.find("a") is None


def test_clients_may_leave_while_they_are_gone_through() -> None:
    clients = connected(*(Connection(name) for name in "abc"))
    for client in clients:
        client.drop(1012, "service restart")
        clients.discard(client)

    assert len(clients) == 0


def test_a_node_that_came_back_is_its_latest_connection() -> None:
    old, new = Connection("a", node_id="pi"), Connection("b", node_id="pi")
    clients = connected(old, new, Connection("c", node_id="phone"), Connection("d"))

    assert clients.node("pi") is new
    clients.discard(new)
    assert clients.node("pi") is old
    assert clients.node("tv") is None


def test_a_client_that_says_little_has_empty_facts() -> None:
    info = ClientInfo(id="cli", mode="cli")

    assert (info.version, info.platform, info.commands, info.caps) == ("", "", (), frozenset())
    assert dict(info.permissions) == {}
