"""What a connection remembers of responses that are not stored."""

from appliance.services.responses.runs import ChainMemory, PreviousResponseNotFound, stored


def test_the_latest_few_are_remembered() -> None:
    memory = ChainMemory(most=2)
    for name in "abc":
        memory.keep(name, [{"id": name}])

    assert [memory.find(name) for name in "abc"] == [None, [{"id": "b"}], [{"id": "c"}]]


def test_large_ones_push_others_out() -> None:
    memory = ChainMemory(most_bytes=100)
    memory.keep("a", [{"id": "x" * 60}])
    memory.keep("b", [{"id": "y" * 60}])
    memory.keep("c", [{"id": "z" * 200}])

    assert [memory.find(name) for name in "abc"] == [None, None, None]


def test_what_is_forgotten_is_gone() -> None:
    memory = ChainMemory()
    memory.keep("a", [])

    memory.forget("a")
    memory.forget("a")

    assert memory.find("a") is None


def test_the_refusal_names_the_field_and_no_reason() -> None:
    error = PreviousResponseNotFound()

    assert error.fields[0].field == "previous_response_id"
    assert error.detail == PreviousResponseNotFound().detail


def test_an_item_is_kept_with_what_a_model_reads() -> None:
    item = stored({"id": "rs_1", "type": "reasoning"}, {"id": "rs_1", "type": "sealed"})

    assert item.json == b'{"id":"rs_1","type":"reasoning"}'
    assert item.said == b'{"id":"rs_1","type":"sealed"}'
