import pytest

from appliance.model.errors import DiskFull, QuotaExceeded
from appliance.storage.room import Room


def test_what_is_not_known_is_not_refused() -> None:
    room = Room()
    room.require(10**15)
    room.changed(10**15)
    assert room.left_bytes is None


def test_room_becomes_less_with_what_is_written() -> None:
    room = Room()
    room.told(left=10, refusal=None)
    room.is_stale = False
    room.changed(7)

    assert (room.left_bytes, room.is_stale) == (3, True)
    room.require(3)
    with pytest.raises(QuotaExceeded, match="room for 3 more bytes"):
        room.require(4)
    room.changed(100)
    assert room.left_bytes == 0
    room.require()


def test_each_refusal_is_raised_anew() -> None:
    room = Room()
    room.told(left=0, refusal=lambda: DiskFull("full"))
    with pytest.raises(DiskFull) as first:
        room.require()
    with pytest.raises(DiskFull) as second:
        room.require()
    assert first.value is not second.value
