from appliance.services.events import TenantEvents
from appliance.transports.websocket.delivered import Delivered, LeftConnection, LeftConnections


def left(events: TenantEvents, delivered: Delivered | None, *, first: int = 0) -> LeftConnection:
    return LeftConnection(
        credential="tok_1",
        events=events,
        first=first,
        delivered=delivered,
        watches_sessions=False,
        watched_sessions=frozenset(),
        until=300.0,
    )


def published(count: int) -> TenantEvents:
    events = TenantEvents()
    for number in range(count):
        events.publish("chat", {"n": number})
    return events


def numbers(of: LeftConnection, seq: int) -> list[int] | None:
    missed = of.missed_since(seq)
    return None if missed is None else [event.number for event in missed]


def test_what_came_after_the_last_seen_event_was_missed() -> None:
    delivered = Delivered()
    delivered.note(1, 1)
    delivered.note(3, 2)  # seq 2 was a tick, which is no event of the tenant

    gone = left(published(4), delivered)

    assert numbers(gone, 1) == [2, 3, 4]
    assert numbers(gone, 2) == [2, 3, 4]
    assert numbers(gone, 3) == [3, 4]


def test_who_saw_nothing_missed_all_since_it_connected() -> None:
    assert numbers(left(published(4), None, first=2), 0) == [3, 4]


def test_what_is_forgotten_cannot_be_told() -> None:
    delivered = Delivered()
    for number in range(1, 2_000):
        delivered.note(number, number)

    gone = left(published(2_000), delivered)

    assert numbers(gone, 5) is None
    assert numbers(gone, 1_999) == [2_000]


def test_events_that_are_no_longer_kept_are_a_gap() -> None:
    assert numbers(left(published(5_000), None), 0) is None


def test_a_connection_is_remembered_for_five_minutes_and_taken_once() -> None:
    book = LeftConnections()
    book.note("acme", "c1", left(TenantEvents(), None))
    book.note("acme", "c2", left(TenantEvents(), None))

    assert book.take("other", "c1", credential="tok_1") is None
    assert book.take("acme", "c1", credential="tok_2") is None
    assert book.take("acme", "c1", credential="tok_1") is not None
    assert book.take("acme", "c1", credential="tok_1") is None
    book.sweep(300.0)
    assert book.take("acme", "c2", credential="tok_1") is None
