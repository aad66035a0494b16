"""Keys: who shares a conversation, and that nobody else does."""

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from appliance.model import session_scopes as scopes
from appliance.model.errors import InvalidRequest
from appliance.model.session_keys import LONGEST, SessionKey
from appliance.model.session_scopes import ChatType, DmScope, IdentityLinks, Peer

ANNA = Peer("telegram", "4711")
LINKS = IdentityLinks({"Alice": ["telegram:4711", "discord:99"]})

names = st.text(min_size=1, max_size=60) | st.sampled_from(
    ["a", "A", "a~u", "%41", "a:b", "b", "direct", "tenant", "~alice", "alice", "x" * 300]
)
channels = st.sampled_from(["telegram", "discord", "irc"])
peers = st.builds(Peer, channels, names, st.sampled_from(["default", "work", "Work"]))


def direct(peer: Peer, scope: DmScope, links: IdentityLinks = scopes.NO_LINKS) -> str:
    return scopes.direct_key("acme", "main", peer, scope=scope, links=links).rest


@pytest.mark.parametrize(
    ("scope", "rest"),
    [
        (DmScope.MAIN, "main"),
        (DmScope.PER_PEER, "direct:4711"),
        (DmScope.PER_CHANNEL_PEER, "telegram:direct:4711"),
        (DmScope.PER_ACCOUNT_CHANNEL_PEER, "telegram:default:direct:4711"),
    ],
)
def test_the_scope_decides_which_direct_messages_are_one_conversation(
    scope: DmScope, rest: str
) -> None:
    assert direct(ANNA, scope) == rest


@pytest.mark.parametrize("scope", [scope for scope in DmScope if scope is not DmScope.MAIN])
def test_linked_peers_are_one_person_on_all_channels(scope: DmScope) -> None:
    assert direct(ANNA, scope, LINKS) == "direct:~alice"
    assert direct(Peer("discord", "99"), scope, LINKS) == "direct:~alice"
    assert direct(Peer("discord", "4711"), scope, LINKS) != "direct:~alice"


def test_a_peer_who_calls_themself_like_a_linked_person_is_somebody_else() -> None:
    for name in ("alice", "~alice", "Alice"):
        assert direct(Peer("irc", name), DmScope.PER_PEER, LINKS) != "direct:~alice"


@given(one=peers, other=peers)
def test_two_peers_never_share_a_key_unless_they_are_linked(one: Peer, other: Peer) -> None:
    told_apart: dict[DmScope, Callable[[Peer], object]] = {
        DmScope.PER_PEER: lambda peer: peer.id,
        DmScope.PER_CHANNEL_PEER: lambda peer: (peer.channel, peer.id),
        DmScope.PER_ACCOUNT_CHANNEL_PEER: lambda peer: (peer.channel, peer.account, peer.id),
    }
    for scope, identity in told_apart.items():
        assert (direct(one, scope) == direct(other, scope)) == (identity(one) == identity(other))
        if direct(one, scope, LINKS) == direct(other, scope, LINKS):
            linked = {LINKS.name(one), LINKS.name(other)}
            assert identity(one) == identity(other) or linked == {"Alice"}


@given(one=st.tuples(channels, names), other=st.tuples(channels, names))
def test_two_groups_never_share_a_key(one: tuple[str, str], other: tuple[str, str]) -> None:
    keys = {
        scopes.group_key("acme", "main", channel=channel, chat_type=kind, group=group)
        for channel, group in (one, other)
        for kind in (ChatType.GROUP, ChatType.CHANNEL)
    }
    assert len(keys) == 2 * len({one, other})


@given(one=names, other=names)
@example(one="Ann", other="ann")
@example(one="Ann", other="ann~c")
@example(one="ann ", other="ann")
@example(one=" ann", other="%20ann")
@example(one="É", other="é")
@example(one="a" * 501, other="a" * 502)
def test_two_users_never_share_a_session(one: str, other: str) -> None:
    keys = {scopes.user_key("acme", "main", user) for user in (one, other)}

    assert len(keys) == len({one, other})
    for key in keys:
        assert SessionKey.parse(key.text, tenant="acme") == key


@pytest.mark.parametrize(
    ("user", "rest"),
    [
        ("ann@example.org", "ann@example.org"),
        ("ann lee", "ann lee"),
        ("Ann", "ann~c"),
        ("tenant:7", "tenant%3a7"),
        ("a\nb", "a%0ab"),
    ],
)
def test_users_are_written_as_they_are_where_nobody_else_is_called_so(user: str, rest: str) -> None:
    assert scopes.user_key("acme", "main", user).rest == f"openai-user:{rest}"


@given(peer=peers, thread=names, scope=st.sampled_from(DmScope))
def test_every_key_reads_back_as_itself(peer: Peer, thread: str, scope: DmScope) -> None:
    key = scopes.direct_key("t" * 32, "a" * 64, peer, scope=scope)
    for made in (key, scopes.thread_key(key, thread), scopes.thread_key(key, thread, topic=True)):
        assert len(made.text) <= LONGEST
        assert SessionKey.parse(made.text, tenant="t" * 32) == made


def test_capitals_are_marked_because_keys_have_none() -> None:
    assert scopes.segment("U024BE", "peer") == "u024be~u"
    assert scopes.segment("u024be", "peer") == "u024be"
    assert scopes.segment("u024BE", "peer") == "u024be~b"


def test_a_peer_without_an_id_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="peer"):
        direct(Peer("irc", ""), DmScope.PER_PEER)


@pytest.mark.parametrize(
    ("rest", "chat_type", "is_thread", "channel", "kind"),
    [
        ("main", "direct", False, None, "direct"),
        ("main:thread:7", "direct", True, None, "direct"),
        ("direct:4711", "direct", False, None, "direct"),
        ("telegram:direct:4711", "direct", False, "telegram", "direct"),
        ("telegram:work:direct:4711", "direct", False, "telegram", "direct"),
        ("telegram:group:-100", "group", False, "telegram", "group"),
        ("telegram:group:-100:topic:5", "group", True, "telegram", "group"),
        ("irc:channel:%23ops", "channel", False, "irc", "group"),
        ("cron:group:x", "direct", False, None, "direct"),
        ("global", "direct", False, None, "global"),
        ("unknown", "direct", False, None, "unknown"),
    ],
)
def test_a_key_says_where_its_session_is(
    rest: str,
    chat_type: str,
    is_thread: bool,  # noqa: FBT001 - a column of the table
    channel: str | None,
    kind: str,
) -> None:
    key = SessionKey("acme", "main", rest)
    assert scopes.chat_type(key) == chat_type
    assert scopes.is_thread(key) is is_thread
    assert scopes.channel(key) == channel
    assert scopes.kind(key) == kind


def test_jobs_and_subagents_are_known_by_their_keys() -> None:
    assert scopes.is_cron(SessionKey("acme", "main", "cron:job"))
    assert scopes.is_system(SessionKey("acme", "main", "hook:1"))
    assert not scopes.is_system(SessionKey("acme", "main", "main"))
    assert scopes.is_subagent(SessionKey("acme", "main", "subagent:1"))
