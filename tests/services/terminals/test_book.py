"""Which terminals a tenant has."""

from collections.abc import AsyncIterator

import pytest
import trio

from appliance.model.errors import NotFound
from appliance.services.terminals.book import TerminalBook
from tests.fakes.sandboxes import Script
from tests.services.tenancy import Tenancy
from tests.services.terminal_bench import TerminalBench, open_bench


@pytest.fixture
async def bench(tenancy: Tenancy) -> AsyncIterator[TerminalBench]:
    async with open_bench(tenancy) as opened:
        yield opened


async def test_one_that_is_being_opened_counts_and_is_not_shown(bench: TerminalBench) -> None:
    book: TerminalBook = bench.tenant.state.terminals
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.spawn, bench.connect())
        while not book.live:
            await trio.lowlevel.checkpoint()
        (opening,) = book.live
        assert book.all == []
        with pytest.raises(NotFound):
            book.require(opening.id)
    assert book.all == [opening]
    assert book.require_live(opening.id) is opening


async def test_one_that_has_ended_is_shown_and_not_live(bench: TerminalBench) -> None:
    book = bench.tenant.state.terminals
    terminal, _ = await bench.spawn(bench.connect(), Script(output=b"x"))
    await terminal.ended.wait()

    assert (book.all, book.live) == ([terminal], [])
    assert book.require(terminal.id) is terminal
    with pytest.raises(NotFound):
        book.require_live(terminal.id)
