"""The runs of a tenant that nobody waits for."""

import pytest
import trio

from appliance.services.responses.book import LiveResponse, ResponseBook, TooManyRuns


class FakeWork:
    def __init__(self) -> None:
        self.cancelled = 0

    def cancel(self) -> None:
        self.cancelled += 1


async def test_a_run_is_there_until_it_ends() -> None:
    book, live = ResponseBook(), LiveResponse("resp_1")
    book.add(live)
    news = live.news

    assert book.find("resp_1") is live
    assert "resp_1" in book
    book.end(live)

    assert (book.find("resp_1"), len(book)) == (None, 0)
    assert news.is_set()
    with trio.fail_after(1):
        await live.ended.wait()


async def test_who_waits_hears_each_piece_of_news() -> None:
    live = LiveResponse("resp_1")
    first = live.news

    live.tell()

    assert first.is_set()
    assert not live.news.is_set()


async def test_cancelling_before_the_work_has_begun_cancels_it() -> None:
    live, work = LiveResponse("resp_1"), FakeWork()

    live.cancel()
    live.started(work)

    assert work.cancelled == 1


async def test_there_is_an_end_to_how_many_there_are() -> None:
    book = ResponseBook()
    book.add(LiveResponse("resp_1"))

    book.require_room(2)
    with pytest.raises(TooManyRuns) as refused:
        book.require_room(1)
    assert refused.value.retry_after == 5
    with pytest.raises(TooManyRuns) as never:
        book.require_room(0)
    assert never.value.retry_after is None
