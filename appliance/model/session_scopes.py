"""Who shares a conversation with whom: which key a message's session has.

A key is made of segments joined by ``:``, in lower case. What a channel calls a
peer may hold anything, so it is written in a way that keeps two names apart
whenever they differ: capitals are marked at the end (``U024BE`` becomes
``u024be~u``), what is not a plain character is percent-encoded, and what is too
long is replaced by its digest. ``~`` begins no name of a channel, so that a name
of ours (``~alice``, from ``identity_links``) is never somebody's on a channel.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import quote

from appliance.model.errors import InvalidRequest
from appliance.model.session_keys import SessionKey

MAIN = "main"
GLOBAL = "global"
UNKNOWN = "unknown"

DEFAULT_ACCOUNT = "default"

_LONGEST_SEGMENT = 80  # of at most four that come from outside: a key has 512 characters
_LONGEST_USER = 480  # characters
_MARKS = frozenset("~%")  # begin what stands for something else in a segment
_PLAIN = "-._+@/!=,"
_GROUPS = {"group": "group", "channel": "channel"}
_THREADS = frozenset({"thread", "topic"})
_SUBAGENT = "subagent"
# Keys that begin so were made by the gateway for something else than a chat.
_OURS = frozenset(
    {
        "acp",
        "cron",
        "direct",
        "explicit",
        "hook",
        "openai",
        "openai-user",
        "openresponses",
        _SUBAGENT,
    }
)
_PREFIX = "tenant"  # would read as that of a tenant between two colons


class DmScope(StrEnum):
    """Which direct messages make up one conversation."""

    MAIN = "main"  # all of them
    PER_PEER = "per-peer"  # those of one id, whatever the channel
    PER_CHANNEL_PEER = "per-channel-peer"
    PER_ACCOUNT_CHANNEL_PEER = "per-account-channel-peer"


class ChatType(StrEnum):
    DIRECT = "direct"
    GROUP = "group"
    CHANNEL = "channel"  # a room that people join, as on IRC or Slack


@dataclass(frozen=True, slots=True)
class Peer:
    """Somebody on a channel. ``account`` is which of our accounts there they write to."""

    channel: str
    id: str
    account: str = DEFAULT_ACCOUNT


class IdentityLinks:
    """Peers of different channels that are one person: ``{name: ["channel:id", …]}``."""

    def __init__(self, links: Mapping[str, Iterable[str]] = {}) -> None:
        self._names: dict[tuple[str, str], str] = {}
        for name, peers in links.items():
            for peer in peers:
                channel, _, own_id = peer.partition(":")
                # The first name that claims a peer has it: a peer is one person.
                self._names.setdefault((channel.lower(), own_id), name)

    def name(self, peer: Peer) -> str | None:
        """Who ``peer`` is, None for somebody who is only themself."""
        return self._names.get((peer.channel.lower(), peer.id))


NO_LINKS = IdentityLinks()


def direct_key(
    tenant: str,
    agent: str,
    peer: Peer,
    *,
    scope: DmScope,
    main_key: str = MAIN,
    links: IdentityLinks = NO_LINKS,
) -> SessionKey:
    """The session of a direct message.

    Peers share it only if ``scope`` does not tell them apart or ``links`` name
    them as one person; a linked person has one session on all channels.

    Raises :exc:`InvalidRequest` for a peer without an id.
    """
    if scope is DmScope.MAIN:
        return SessionKey(tenant, agent, main_key)
    name = links.name(peer)
    if name is not None:
        return SessionKey(tenant, agent, f"direct:~{segment(name.lower(), 'identity_links')}")
    own_id = segment(peer.id, "peer")
    match scope:
        case DmScope.PER_PEER:
            rest = f"direct:{own_id}"
        case DmScope.PER_CHANNEL_PEER:
            rest = f"{segment(peer.channel, 'channel')}:direct:{own_id}"
        case DmScope.PER_ACCOUNT_CHANNEL_PEER:
            account = segment(peer.account or DEFAULT_ACCOUNT, "account")
            rest = f"{segment(peer.channel, 'channel')}:{account}:direct:{own_id}"
    return SessionKey(tenant, agent, rest)


def user_key(tenant: str, agent: str, user: str) -> SessionKey:
    """The session of one of an API caller's own users; no two share one.

    What could be read as another user, or as a prefix, is written as a segment.
    """
    is_plain = (
        user == user.strip().lower()
        and len(user) <= _LONGEST_USER
        and user.isprintable()
        and not _MARKS & set(user)
        and f"{_PREFIX}:" not in user
    )
    return SessionKey(tenant, agent, f"openai-user:{user if is_plain else segment(user, 'user')}")


def group_key(
    tenant: str, agent: str, *, channel: str, chat_type: ChatType, group: str
) -> SessionKey:
    """The session of a group or a room, which all its members share."""
    kind = ChatType.CHANNEL if chat_type is ChatType.CHANNEL else ChatType.GROUP
    rest = f"{segment(channel, 'channel')}:{kind}:{segment(group, 'group')}"
    return SessionKey(tenant, agent, rest)


def thread_key(key: SessionKey, thread: str, *, topic: bool = False) -> SessionKey:
    """The session of a thread (or a forum's topic) beside that of its chat."""
    word = "topic" if topic else "thread"
    return SessionKey(key.tenant, key.agent, f"{key.rest}:{word}:{segment(thread, word)}")


def segment(text: str, field: str) -> str:
    """``text`` as one segment of a key; different texts give different segments.

    Raises :exc:`InvalidRequest` naming ``field`` if there is nothing in it.
    """
    if not text:
        raise InvalidRequest.at(field, "is empty", "say who or where it is")
    lowered = "".join(c.lower() if c.isascii() else c for c in text)
    written = quote(lowered, safe=_PLAIN, errors="surrogatepass").lower().replace("~", "%7e")
    if written == _PREFIX:
        written = f"%{ord(written[0]):x}{written[1:]}"
    written += _capitals(text)
    if len(written) <= _LONGEST_SEGMENT:
        return written
    return "~h" + hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _capitals(text: str) -> str:
    """A mark that says which letters were capital; "" if none was."""
    letters = [c for c in text if c.isascii() and c.isalpha()]
    if not any(c.isupper() for c in letters):
        return ""
    if all(c.isupper() for c in letters):
        return "~u"
    bits = "".join("1" if c.isupper() else "0" for c in letters)
    # The leading one keeps the zeros at the beginning.
    return f"~{int('1' + bits, 2):x}"


# What a key says


def chat_type(key: SessionKey) -> ChatType:
    """What kind of chat the session belongs to; a thread's is that of its chat."""
    parts = key.rest.split(":")
    if len(parts) >= 3 and parts[1] in _GROUPS and parts[0] not in _OURS:
        return ChatType(_GROUPS[parts[1]])
    return ChatType.DIRECT


def is_thread(key: SessionKey) -> bool:
    parts = key.rest.split(":")
    return len(parts) >= 3 and parts[-2] in _THREADS


def channel(key: SessionKey) -> str | None:
    """The channel that the key itself names."""
    parts = key.rest.split(":")
    if chat_type(key) is not ChatType.DIRECT:
        return parts[0]
    if "direct" in parts[1:3] and parts[0] not in _OURS:
        return parts[0]
    return None


def is_cron(key: SessionKey) -> bool:
    return key.rest.startswith("cron:")


def is_subagent(key: SessionKey) -> bool:
    return key.rest.split(":", 1)[0] == _SUBAGENT


def is_system(key: SessionKey) -> bool:
    """Whether no person speaks in it: jobs, hooks and what is known to nobody."""
    return is_cron(key) or key.rest.split(":", 1)[0] == "hook" or key.rest == UNKNOWN


def kind(key: SessionKey) -> str:
    """What clients call it: ``direct``, ``group``, ``global`` or ``unknown``."""
    if key.rest in {GLOBAL, UNKNOWN}:
        return key.rest
    return "direct" if chat_type(key) is ChatType.DIRECT else "group"
