"""The usage ledger: what was reserved, what was used, what it cost at the price of that moment.

The hot path touches one page a commit. Therefore a settled reservation is not
deleted at once, there is no index on the time, and ``hours`` holds sums only
of what :meth:`LedgerStore.fold` has added up; what is newer is few rows, and
always the last ones.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import msgspec

from appliance.model.money import Price
from appliance.model.periods import HOUR
from appliance.model.spending import SpendRequest
from appliance.model.usage import TokenUsage
from appliance.storage.connection import Connection, DatabaseRoot
from appliance.storage.database import Database
from appliance.storage.ledger_schema import SCHEMA
from appliance.storage.sandbox_entries import SandboxEntry, insert

FILE = "ledger/ledger.sqlite"

# Settled calls between two foldings: few enough that one costs the loop less
# than a millisecond, many enough that it does not show in a call's cost.
FOLD_EVERY = 256
_YOUNG = 500  # calls

# Columns by name: a later release may have added some that this one can do without.
_RESERVE = """
INSERT INTO reservations (
    id, ts_ns, request_id, kind, route, agent, session, channel, token_id, tags,
    input_tokens, output_tokens, cost_nano, price
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_SETTLE = """
INSERT INTO entries (
    id, ts_ns, settled_ns, request_id, kind, route, provider, model, agent, session, channel,
    token_id, tags, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens,
    reasoning_tokens, tool_calls, sandbox_ms, cost_nano, currency, price, estimated, outcome,
    provider_request_id, input_audio_tokens, output_audio_tokens, web_searches
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_CORRECT = """
INSERT INTO entries (
    id, ts_ns, settled_ns, request_id, kind, route, provider, model, agent, session, channel,
    token_id, tags, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens,
    reasoning_tokens, tool_calls, sandbox_ms, cost_nano, currency, estimated, outcome,
    provider_request_id, corrects, note
)
SELECT ?, ?, ?, request_id, kind, route, provider, model, agent, session, channel,
       token_id, tags, 0, 0, 0, 0, 0, 0, 0, ?, currency, 0, 'corrected',
       provider_request_id, id, ?
FROM entries WHERE id = ? AND corrects IS NULL
"""
_LEFT_OPEN = """
SELECT id, ts_ns, request_id, kind, route, agent, session, channel, token_id, tags,
       input_tokens, output_tokens, cost_nano, price
FROM reservations AS r
WHERE NOT EXISTS (SELECT 1 FROM entries AS e WHERE e.id = r.id) ORDER BY id
"""
_FOLD = """
INSERT INTO hours (hour, first_id, last_id, calls, tokens, cost_nano)
SELECT hour, min(id), max(id), count(*) FILTER (WHERE corrects IS NULL AND kind <> 'sandbox'),
       sum(tokens), coalesce(sum(cost_nano), 0)
FROM entries WHERE id > ? AND id <= ? GROUP BY hour
ON CONFLICT (hour) DO UPDATE SET
    first_id = min(first_id, excluded.first_id), last_id = max(last_id, excluded.last_id),
    calls = calls + excluded.calls, tokens = tokens + excluded.tokens,
    cost_nano = cost_nano + excluded.cost_nano
"""
_SUM_FOLDED = """
SELECT coalesce(sum(calls), 0), coalesce(sum(tokens), 0), coalesce(sum(cost_nano), 0)
FROM hours WHERE hour >= ? AND hour < ?
"""
_SUM_NEWER = """
SELECT count(*) FILTER (WHERE corrects IS NULL AND kind <> 'sandbox'),
       coalesce(sum(tokens), 0), coalesce(sum(cost_nano), 0)
FROM entries WHERE id > ? AND ts_ns >= ? AND ts_ns < ?
"""
_RECENT = """
SELECT min(ts_ns), max(ts_ns), count(*), sum(tokens) FROM entries_in_period
WHERE corrects IS NULL AND kind <> 'sandbox' GROUP BY ts_ns / 1000000000 ORDER BY 1
"""
# Put before a query, it gives it ``entries_in_period``: entries with
# ``:start <= ts_ns < :end``, found through two ranges of the primary key, that
# of the folded hours in question and that of everything newer.
IN_PERIOD = """
WITH ids AS (
    SELECT min(first_id) AS first, max(last_id) AS last FROM hours
    WHERE hour BETWEEN :start / 3600000000000 AND :end / 3600000000000
), entries_in_period AS (
    SELECT * FROM entries
    WHERE (
        id BETWEEN (SELECT first FROM ids) AND (SELECT last FROM ids)
        OR id > (SELECT upto FROM folded)
    ) AND ts_ns >= :start AND ts_ns < :end
)
"""


@dataclass(frozen=True, slots=True)
class OpenReservation:
    """A reservation that no entry has settled."""

    id: int
    ts_ns: int
    request: SpendRequest
    input_tokens: int
    output_tokens: int
    cost_nano: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A settled call; ``id`` is its reservation's."""

    id: int
    ts_ns: int
    settled_ns: int
    request: SpendRequest
    provider: str
    model: str
    usage: TokenUsage
    cost_nano: int | None
    currency: str
    price: Price | None
    outcome: str
    provider_request_id: str | None = None
    tool_calls: int = 0
    sandbox_ms: int = 0


class Sums(msgspec.Struct, array_like=True, frozen=True):
    """Corrections change the sums, but are no calls."""

    calls: int
    tokens: int
    cost_nano: int


class Burst(msgspec.Struct, array_like=True, frozen=True):
    """Calls admitted within one second."""

    first_ns: int
    last_ns: int
    calls: int
    tokens: int


class LedgerStore:
    """The ledger of one tenant. Methods that are not async run in the loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._last_id = database.read(_last_id)
        self._since_fold = 0
        self.durable = database.durable
        self.tend = database.tend
        self.scan = database.scan
        self.close = database.close

    @classmethod
    async def open(cls, root: DatabaseRoot) -> "LedgerStore":
        database = await Database.open(root, FILE, SCHEMA)
        try:
            return cls(database)
        except BaseException:
            await database.close()
            raise

    def reserve(
        self,
        ts_ns: int,
        request: SpendRequest,
        *,
        input_tokens: int,
        output_tokens: int,
        cost_nano: int | None,
    ) -> int:
        """Write a reservation down and return its id."""
        number = self._last_id + 1
        row = (
            number,
            ts_ns,
            request.request_id,
            request.kind,
            request.model,
            request.agent,
            request.session,
            request.channel,
            request.token_id,
            _encode_tags(request.tags),
            input_tokens,
            output_tokens,
            cost_nano,
            _encode_price(request.price),
        )
        self._database.write(lambda tx: tx.execute(_RESERVE, row))
        self._last_id = number
        return number

    def settle(self, entries: Iterable[Entry]) -> None:
        """Write the entries of one or more reservations, all or none."""
        rows = [_row(entry) for entry in entries]

        def insert(tx: Connection) -> None:
            for row in rows:
                tx.execute(_SETTLE, row)

        self._database.write(insert)
        self._since_fold += len(rows)

    def record_sandbox(self, entry: SandboxEntry, *, currency: str) -> None:
        """Write down what a sandbox used, after the fact."""
        number = self._last_id + 1
        self._database.write(lambda tx: insert(tx, number, entry, currency=currency))
        self._last_id = number
        self._since_fold += 1

    def correct(self, entry_id: int, *, now_ns: int, cost_nano: int, note: str) -> bool:
        """Add ``cost_nano`` (mostly negative) to what entry ``entry_id`` cost, dated now.

        A closed month keeps its sum: the credit belongs to the current one.
        Returns False if there is no such entry.
        """
        number = self._last_id + 1

        def insert(tx: Connection) -> bool:
            tx.execute(_CORRECT, (number, now_ns, now_ns, cost_nano, note, entry_id))
            return tx.changes() == 1

        done = self._database.write(insert)
        self._last_id = number
        return done

    def left_open(self) -> list[OpenReservation]:
        """Reservations without an entry: when the ledger is opened, those a crash left."""
        rows = self._database.read(lambda tx: tx.execute(_LEFT_OPEN).fetchall())
        return [_open_reservation(row) for row in rows]

    def fold_when_due(self, first_open: int | None) -> None:
        """:meth:`fold`, but only every so many settled calls."""
        if self._since_fold >= FOLD_EVERY:
            self.fold(first_open)

    def fold_rest(self) -> None:
        """:meth:`fold` when no call is under way, if there is anything to do."""
        if self._database.read(_folded_upto) < self._last_id:
            self.fold(None)

    def fold(self, first_open: int | None) -> None:
        """Add settled entries to ``hours`` and drop their reservations.

        ``first_open`` is the oldest call under way: entries may still be
        written from there on, so folding stops before it.
        """
        upto = self._last_id if first_open is None else first_open - 1

        def fold(tx: Connection) -> None:
            tx.execute(_FOLD, (_folded_upto(tx), upto))
            tx.execute("DELETE FROM reservations WHERE id <= ?", (upto,))
            tx.execute("UPDATE folded SET upto = ?", (upto,))

        self._database.write(fold)
        self._since_fold = 0

    def sums(self, start_ns: int, end_ns: int) -> Sums:
        """What was used of ``start_ns <= t < end_ns``; both are full hours."""

        def query(tx: Connection) -> Sums:
            upto = _folded_upto(tx)
            folded = tx.execute(_SUM_FOLDED, (start_ns // HOUR, end_ns // HOUR)).fetchone()
            newer = tx.execute(_SUM_NEWER, (upto, start_ns, end_ns)).fetchone()
            old, new = msgspec.convert((folded, newer), tuple[Sums, Sums])
            return Sums(
                old.calls + new.calls, old.tokens + new.tokens, old.cost_nano + new.cost_nano
            )

        return self._database.read(query)

    async def recent(self, start_ns: int, end_ns: int) -> list[Burst]:
        """The calls admitted in a period, second by second, oldest first."""
        period = {"start": start_ns, "end": end_ns}
        rows = await self._database.scan(
            lambda tx: tx.execute(IN_PERIOD + _RECENT, period).fetchall()
        )
        return msgspec.convert(rows, list[Burst])


def _last_id(tx: Connection) -> int:
    return _number(
        tx,
        """
        SELECT max(coalesce((SELECT max(id) FROM entries), 0),
                   coalesce((SELECT max(id) FROM reservations), 0))
        """,
    )


def _folded_upto(tx: Connection) -> int:
    return _number(tx, "SELECT upto FROM folded")


def _number(tx: Connection, query: str) -> int:
    ((number,),) = tx.execute(query).fetchall()
    return msgspec.convert(number, int)


def _row(entry: Entry) -> tuple[str | int | None, ...]:
    request, usage = entry.request, entry.usage
    return (
        entry.id,
        entry.ts_ns,
        entry.settled_ns,
        request.request_id,
        request.kind,
        request.model,
        entry.provider,
        entry.model,
        request.agent,
        request.session,
        request.channel,
        request.token_id,
        _encode_tags(request.tags),
        usage.input,
        usage.output,
        usage.cache_read,
        usage.cache_write,
        usage.reasoning,
        entry.tool_calls,
        entry.sandbox_ms,
        entry.cost_nano,
        entry.currency,
        _encode_price(entry.price),
        int(usage.estimated),
        entry.outcome,
        entry.provider_request_id,
        usage.input_audio,
        usage.output_audio,
        usage.web_searches,
    )


class _OpenRow(msgspec.Struct, array_like=True):
    id: int
    ts_ns: int
    request_id: str
    kind: str
    route: str
    agent: str | None
    session: str | None
    channel: str | None
    token_id: str | None
    tags: str | None
    input_tokens: int
    output_tokens: int
    cost_nano: int | None
    price: str | None


def _open_reservation(values: object) -> OpenReservation:
    row = msgspec.convert(values, _OpenRow)
    request = SpendRequest(
        request_id=row.request_id,
        kind=row.kind,
        model=row.route,
        prompt_bytes=0,  # not kept: input_tokens is what came of them
        output_limit=None,
        price=None if row.price is None else msgspec.json.decode(row.price, type=Price),
        session=row.session,
        agent=row.agent,
        token_id=row.token_id,
        channel=row.channel,
        tags=() if row.tags is None else msgspec.json.decode(row.tags, type=tuple[str, ...]),
    )
    return OpenReservation(
        row.id, row.ts_ns, request, row.input_tokens, row.output_tokens, row.cost_nano
    )


# A tenant's calls name few prices and fewer sets of tags: each is encoded once.
@lru_cache(maxsize=1_024)
def _encode_price(price: Price | None) -> str | None:
    if price is None:
        return None
    told = msgspec.to_builtins(price)
    return msgspec.json.encode({k: v for k, v in told.items() if v is not None}).decode()


@lru_cache(maxsize=1_024)
def _encode_tags(tags: tuple[str, ...]) -> str | None:
    return msgspec.json.encode(tags).decode() if tags else None
