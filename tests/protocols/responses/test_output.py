"""Output items while they are being said."""

import msgspec

from appliance.model.calls import Dialect
from appliance.protocols.responses import seals
from appliance.protocols.responses.output import (
    CallItem,
    HostedItem,
    MessageItem,
    Part,
    ReasoningItem,
    response_object,
)
from appliance.protocols.responses.request import ResponsesRequest
from tests.protocols.responses.lifecycle import check_response


def test_a_message_grows_by_parts() -> None:
    item = MessageItem(0)
    text, refusal = Part("output_text", 0), Part("refusal", 1)
    text.pieces += ["a", "b"]
    refusal.pieces.append("no")
    item.parts += [text, refusal]

    assert item.value() == {
        "type": "message",
        "id": item.id,
        "status": "in_progress",
        "role": "assistant",
        "content": [
            {"type": "output_text", "text": "ab", "annotations": [], "logprobs": []},
            {"type": "refusal", "refusal": "no"},
        ],
    }
    assert item.kept() == item.value()


def test_a_seal_is_kept_and_shown_to_those_who_asked() -> None:
    for shows in (True, False):
        item = ReasoningItem(0, shows_seal=shows)
        assert item.kept() == item.value()
        item.seal(signature="sig", hidden="")
        assert ("encrypted_content" in item.value()) is shows
        assert seals.unseal(item.kept()["encrypted_content"])["signature"] == "sig"


def test_hidden_thought_of_a_provider_of_this_api_goes_out_as_it_came() -> None:
    mine, theirs = (ReasoningItem(0, shows_seal=True) for _ in range(2))
    mine.seal(signature="", hidden=seals.seal_hidden("gAAA", Dialect.RESPONSES))
    theirs.seal(signature="", hidden="redacted")

    assert mine.value()["encrypted_content"] == "gAAA"
    sealed = theirs.value()["encrypted_content"]
    assert seals.hidden_of(sealed, Dialect.ANTHROPIC) == "redacted"


def test_what_is_not_whole_is_not_kept() -> None:
    call = CallItem(0, call_id="c", name="f")
    hosted = HostedItem(None, call_id="c", name="f", arguments="{}")
    for item in (call, hosted):
        assert item.kept() is None
        item.status = "completed"
        assert item.kept() == item.value()
    hosted.is_error = True
    assert hosted.value()["is_error"]


def test_the_least_response_has_all_that_clients_want() -> None:
    request = ResponsesRequest.parse(b'{"model":"m","input":"hi"}', limit_bytes=100)
    response = response_object(
        request, id="resp_1", created_at=1, model="m", status="queued", output=[]
    )

    check_response(msgspec.json.decode(msgspec.json.encode(response)))
