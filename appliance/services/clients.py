"""Who is connected to a tenant right now: operators' clients and nodes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from appliance.model.callers import Caller
from appliance.model.operator_scopes import OperatorScope, Role


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientInfo:
    """What a client says of itself; nothing in here is proven."""

    id: str  # such as cli, openclaw-control-ui, node-host
    mode: str  # such as cli, webchat, probe, node
    version: str = ""
    platform: str = ""
    display_name: str = ""
    device_family: str = ""
    model_identifier: str = ""
    instance_id: str = ""
    user_agent: str = ""
    locale: str = ""
    commands: tuple[str, ...] = ()  # what a node can do
    caps: frozenset[str] = frozenset()
    permissions: Mapping[str, bool] = field(default_factory=dict)


class Client(Protocol):
    """One live connection, as services and methods see it."""

    @property
    def id(self) -> str:
        """``connId``: unguessable, new with every connection."""

    @property
    def protocol(self) -> int: ...
    @property
    def caller(self) -> Caller: ...
    @property
    def role(self) -> Role: ...
    @property
    def scopes(self) -> frozenset[OperatorScope]: ...
    @property
    def info(self) -> ClientInfo: ...
    @property
    def device_id(self) -> str | None:
        """The Ed25519 identity that the client proved to hold."""

    @property
    def node_id(self) -> str | None:
        """What the node is called; None for an operator."""

    @property
    def connected_at(self) -> datetime: ...
    @property
    def watches_sessions(self) -> bool: ...
    @watches_sessions.setter
    def watches_sessions(self, value: bool) -> None: ...
    @property
    def watched_sessions(self) -> set[str]:
        """The sessions (short keys) whose messages it subscribed to."""

    @property
    def buffered(self) -> int:
        """Bytes of answers and events that the client has not taken yet."""

    def send_event(self, name: str, payload: object) -> bool:
        """Tell this client alone; False if its connection is going away.

        ``bytes`` are JSON already.
        """

    def drop(self, code: int, reason: str) -> None:
        """Close the connection soon, without waiting."""


class ConnectedClients:
    """The connections of one tenant, in the order they came."""

    def __init__(self) -> None:
        self._clients: dict[str, Client] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def __iter__(self) -> Iterator[Client]:
        return iter(list(self._clients.values()))

    def add(self, client: Client) -> None:
        self._clients[client.id] = client

    def discard(self, client: Client) -> None:
        self._clients.pop(client.id, None)

    def find(self, client_id: str) -> Client | None:
        return self._clients.get(client_id)

    def node(self, node_id: str) -> Client | None:
        """The latest connection of a node."""
        for client in reversed(list(self._clients.values())):
            if client.node_id == node_id:
                return client
        return None
