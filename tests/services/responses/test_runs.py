"""Values of a response on its way."""

from appliance.services.responses.runs import PreviousResponseNotFound, stored


def test_the_refusal_names_the_field_and_no_reason() -> None:
    error = PreviousResponseNotFound()

    assert error.fields[0].field == "previous_response_id"
    assert error.detail == PreviousResponseNotFound().detail


def test_an_item_is_kept_with_what_a_model_reads() -> None:
    item = stored({"id": "rs_1", "type": "reasoning"}, {"id": "rs_1", "type": "sealed"})

    assert item.json == b'{"id":"rs_1","type":"reasoning"}'
    assert item.said == b'{"id":"rs_1","type":"sealed"}'
