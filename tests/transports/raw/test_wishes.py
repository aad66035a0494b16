"""What a caller asks in headers."""

import pytest

from appliance.model.cache_use import CacheWish
from appliance.model.callers import ActorKind, Caller
from appliance.model.errors import InvalidRequest
from appliance.transports.raw.wishes import with_cache_control, with_wishes

CALLER = Caller(ActorKind.TENANT, "tok_1", "acme")


def test_without_such_headers_the_caller_is_the_same() -> None:
    assert with_wishes(CALLER, [(b"host", b"x"), (b"x-openclaw-agent-id", b"main")]) is CALLER


def test_tags_are_read_and_put_in_order() -> None:
    caller = with_wishes(CALLER, [(b"x-openclaw-tags", b"team=red, project=a.b:c-d_1")])

    assert caller.tags == ("project=a.b:c-d_1", "team=red")


def test_tags_in_several_lines_are_one_list() -> None:
    caller = with_wishes(CALLER, [(b"x-openclaw-tags", b"team=red"), (b"x-openclaw-tags", b"a=b")])

    assert caller.tags == ("a=b", "team=red")
    with pytest.raises(InvalidRequest, match="twice"):
        with_wishes(CALLER, [(b"x-openclaw-tags", b"a=b")] * 2)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"", "name=value"),
        (b"team", "name=value"),
        (b"team=", "name=value"),
        (b"Team=red", "name=value"),
        (b"team=r\xc3\xa9d", "name=value"),
        (b"team=" + b"x" * 65, "name=value"),
        (b"a=1,a=2", "twice"),
        (b",".join(b"t%d=1" % number for number in range(9)), "more than 8"),
    ],
)
def test_what_is_no_tag_is_refused(header: bytes, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        with_wishes(CALLER, [(b"x-openclaw-tags", header)])


@pytest.mark.parametrize("wish", [wish for wish in CacheWish if wish])
def test_kept_answers_may_be_declined(wish: CacheWish) -> None:
    headers = [(b"x-openclaw-cache", f" {wish.value.upper()} ".encode())]

    assert with_wishes(CALLER, headers).cache is wish


def test_any_other_word_about_kept_answers_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no-cache, no-store, bypass"):
        with_wishes(CALLER, [(b"x-openclaw-cache", b"off")])


@pytest.mark.parametrize(
    ("values", "wish"),
    [
        ([b"no-cache"], CacheWish.NO_CACHE),
        ([b"no-store"], CacheWish.BYPASS),
        ([b" No-Cache , max-age=0"], CacheWish.NO_CACHE),
        ([b"no-cache", b"private,NO-STORE"], CacheWish.BYPASS),
        ([b"max-age=60"], CacheWish.USUAL),
        ([b""], CacheWish.USUAL),
        ([b",,;=\xff"], CacheWish.USUAL),
        ([b"no-cached"], CacheWish.USUAL),
        ([b"no-store=1"], CacheWish.USUAL),
        ([b"x" * 60_000], CacheWish.USUAL),
        ([], CacheWish.USUAL),
    ],
    ids=lambda given: repr(given)[:30],
)
def test_cache_control_is_heeded_as_far_as_it_can_be_read(
    values: list[bytes], wish: CacheWish
) -> None:
    headers = [(b"cache-control", value) for value in values]

    assert with_cache_control(CALLER, headers).cache is wish
