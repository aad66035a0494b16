"""What a connection remembers of responses that are not stored."""

from appliance.services.responses.chains import ChainMemory, ChainShelf


def test_the_latest_few_are_remembered() -> None:
    memory = ChainMemory(most=2)
    for name in "abc":
        memory.keep(name, [{"id": name}], 10)

    assert [memory.find(name) for name in "abc"] == [None, [{"id": "b"}], [{"id": "c"}]]


def test_all_connections_of_a_tenant_share_its_room_and_the_oldest_goes_first() -> None:
    shelf = ChainShelf(most_bytes=100)
    first, second = ChainMemory(shelf), ChainMemory(shelf)
    first.keep("a", [{"id": "a"}], 50)
    second.keep("b", [{"id": "b"}], 50)

    second.keep("c", [{"id": "c"}], 1)

    assert first.find("a") is None
    assert [second.find(name) for name in "bc"] == [[{"id": "b"}], [{"id": "c"}]]
    assert shelf.size == 51


def test_what_is_larger_than_all_of_the_room_is_not_remembered() -> None:
    shelf = ChainShelf(most_bytes=100)
    memory = ChainMemory(shelf)

    memory.keep("a", [{"id": "a"}], 101)

    assert memory.find("a") is None
    assert shelf.size == 0


def test_no_connection_finds_what_another_keeps() -> None:
    shelf = ChainShelf()
    first, second = ChainMemory(shelf), ChainMemory(shelf)

    first.keep("a", [], 2)
    second.keep("a", [{"id": "x"}], 10)
    second.forget("a")

    assert first.find("a") == []
    assert second.find("a") is None


def test_the_same_again_takes_its_room_once() -> None:
    shelf = ChainShelf()
    memory = ChainMemory(shelf)

    memory.keep("a", [], 2)
    memory.keep("a", [], 3)

    assert shelf.size == 3


def test_what_is_forgotten_is_gone() -> None:
    memory = ChainMemory()
    memory.keep("a", [], 2)

    memory.forget("a")
    memory.forget("a")

    assert memory.find("a") is None


def test_a_connection_that_ended_leaves_nothing() -> None:
    shelf = ChainShelf()
    memory = ChainMemory(shelf)
    memory.keep("a", [], 2)
    memory.keep("b", [], 2)

    memory.clear()

    assert shelf.size == 0
