"""Decompression that cannot be made to fill the memory."""

import gzip
import os
import time
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.protocols.answers import MalformedAnswer
from appliance.protocols.content_coding import decoded_body


@given(st.binary(max_size=5000), st.integers(0, 6000), st.sampled_from(["gzip", "deflate", ""]))
def test_what_was_compressed_comes_back_as_far_as_it_is_wanted(
    body: bytes, limit: int, coding: str
) -> None:
    sent = {"gzip": gzip.compress(body), "deflate": zlib.compress(body), "": body}[coding]

    assert decoded_body(sent, coding, limit=limit) == (body[:limit], len(body) > limit)


@given(st.binary(max_size=300), st.sampled_from(["gzip", "X-Gzip", "deflate", " identity "]))
def test_any_bytes_are_read_or_refused(body: bytes, coding: str) -> None:
    try:
        found, _ = decoded_body(body, coding, limit=1000)
    except MalformedAnswer:
        return
    assert len(found) <= 1000


def test_several_members_are_one_body_and_padding_is_none() -> None:
    two = gzip.compress(b"one ") + gzip.compress(b"two")

    assert decoded_body(two, "gzip", limit=100) == (b"one two", False)
    assert decoded_body(two + bytes(500), "gzip", limit=100) == (b"one two", False)


def test_a_body_that_stops_short_yields_what_it_holds() -> None:
    text = os.urandom(100_000)  # whose half is half of it compressed, too
    whole = gzip.compress(text)

    found, is_cut = decoded_body(whole[: len(whole) // 2], "gzip", limit=200_000)

    assert text.startswith(found)
    assert len(found) > 10_000
    assert not is_cut


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "aes128gcm"])
def test_a_coding_nobody_asked_for_is_refused(coding: str) -> None:
    with pytest.raises(MalformedAnswer):
        decoded_body(b"x", coding, limit=100)


def test_a_bomb_takes_time_and_memory_of_its_limit_alone() -> None:
    bomb = gzip.compress(bytes(200_000_000))
    many = gzip.compress(b"") * 200_000

    began = time.perf_counter()
    found, is_cut = decoded_body(bomb, "gzip", limit=1_000_000)
    nothing, _ = decoded_body(many, "gzip", limit=1_000_000)

    assert (len(found), is_cut, nothing) == (1_000_000, True, b"")
    assert time.perf_counter() - began < 2
