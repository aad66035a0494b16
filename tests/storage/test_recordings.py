import os
from datetime import timedelta
from pathlib import Path

import pytest

from appliance.model.errors import NotFound
from appliance.protocols import asciicast
from appliance.protocols.asciicast import Code, Header
from appliance.storage.recordings import FOLDER, RecordingStore, new_recording_id
from tests.books import NOON, directory

HEADER = Header(columns=80, rows=24, timestamp=0, title="bash")


@pytest.fixture
def store(tmp_path: Path) -> RecordingStore:
    return RecordingStore(directory(tmp_path / "acme"))


def record(store: RecordingStore, *, minute: int = 0, ended: str | None = "exit") -> str:
    name = new_recording_id(NOON + timedelta(minutes=minute))
    with store.create(name) as file:
        file.write(asciicast.encode_header(HEADER))
        file.write(asciicast.encode_event(0.5, Code.OUTPUT, "hello"))
        if ended is not None:
            file.write(asciicast.encode_end(2.5, ended))
    return name


def test_there_is_nothing_at_first(store: RecordingStore) -> None:
    assert store.list() == []
    assert store.prune(0) == 0


def test_the_newest_comes_first_and_says_what_it_is(store: RecordingStore) -> None:
    names = [record(store, minute=minute) for minute in range(3)]

    found = store.list()
    assert [each.id for each in found] == names[::-1]
    assert found[-1].begun_ms == NOON.timestamp() * 1000
    assert (found[0].header, found[0].seconds, found[0].ended) == (HEADER, 2.5, "exit")
    assert store.get(names[0]) == found[-1]


def test_one_that_was_cut_off_says_so(store: RecordingStore) -> None:
    found = store.get(record(store, ended=None))

    assert (found.seconds, found.ended) == (None, None)


def test_it_is_read_in_pieces(store: RecordingStore) -> None:
    name = record(store)
    whole = store.read(name, most=10_000)

    assert whole.startswith(b'{"version":2')
    assert store.read(name, offset=10, most=5) == whole[10:15]
    assert store.read(name, offset=len(whole), most=5) == b""
    assert store.get(name).size == len(whole)


def test_the_oldest_go_but_those_that_run(store: RecordingStore) -> None:
    names = [record(store, minute=minute) for minute in range(5)]

    assert store.prune(2, spare={names[0]}) == 2
    assert [each.id for each in store.list()] == [names[4], names[3], names[0]]
    assert store.prune(0, spare={names[0]}) == 2


@pytest.mark.parametrize(
    "name", ["", "rec_0000000000000_" + "0" * 24, "../tenant.json", "rec_1", "terminal", "a/b"]
)
def test_an_unknown_id_is_answered_like_one_that_is_none(store: RecordingStore, name: str) -> None:
    record(store)
    for use in (store.get, store.delete, lambda each: store.read(each, most=1)):
        with pytest.raises(NotFound, match="there is no such recording"):
            use(name)


def test_a_removed_one_is_gone(store: RecordingStore) -> None:
    name = record(store)
    store.delete(name)

    assert store.list() == []
    with pytest.raises(NotFound):
        store.delete(name)


def test_no_id_is_used_twice(store: RecordingStore) -> None:
    name = record(store)
    with pytest.raises(FileExistsError):
        store.create(name)


def test_what_else_lies_there_is_passed_over(store: RecordingStore, tmp_path: Path) -> None:
    name = record(store)
    folder = tmp_path / "acme" / FOLDER
    (folder / "notes.txt").write_text("x")
    (folder / f"{new_recording_id(NOON)}.cast").write_text("no recording")
    (folder / f"{new_recording_id(NOON)}.cast").symlink_to("/etc/passwd")
    os.mkfifo(folder / f"{new_recording_id(NOON)}.cast")

    assert [each.id for each in store.list()] == [name]
