"""Events: numbered, told and framed; and the items that they are about."""

from appliance.protocols.responses.events import EventLog, OutputItems
from appliance.protocols.responses.output import CallItem, HostedItem


def test_each_event_has_its_number_and_is_told_before_it_goes_out() -> None:
    told: list[tuple[int, bytes]] = []
    log = EventLog(lambda number, event: told.append((number, event)))
    head = log.text_head({"item_id": "msg_1"})

    log.add("response.a", more=1)
    log.add_text(head, 'b"')

    first = b'{"type":"response.a","more":1,"sequence_number":0}'
    second = (
        b'{"type":"response.output_text.delta","item_id":"msg_1","logprobs":[],'
        b'"sequence_number":1,"delta":"b\\""}'
    )
    assert told == [(0, first), (1, second)]
    assert log.take() == (
        b"event: response.a\ndata: %s\n\nevent: response.output_text.delta\ndata: %s\n\n"
        % (first, second)
    )
    assert log.take() == b""


def test_a_silent_log_says_nothing() -> None:
    log = EventLog()
    log.is_silent = True

    log.add("response.a")

    assert log.take() == b""


def test_what_is_hidden_is_kept_and_not_shown() -> None:
    log = EventLog()
    items = OutputItems(log)
    call = CallItem(items.next_index(), call_id="c", name="f")
    hidden = HostedItem(None, call_id="d", name="g", arguments="{}")
    for item in (call, hidden):
        items.begin(item)
        items.end(item)

    assert items.shown == [call.value()]
    assert items.kept == [call.value(), hidden.value()]
    assert items.last is hidden
    assert log.take().count(b"event: response.output_item.") == 2
