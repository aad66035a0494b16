"""What other dialects cost beside chat completions that are passed through."""

from collections.abc import Callable

from tests.bench.answers import (
    EVENTS,
    MODEL,
    messages_body,
    request_body,
    request_bytes,
    responses_body,
)
from tests.bench.gateway import CHAT, MESSAGES, RESPONSES
from tests.bench.load import Target
from tests.bench.lockstep import TRANSLATED_CHAT, TRANSLATED_MESSAGES, LockstepResult, marker
from tests.bench.report import Bar, Row, at_most, at_most_share
from tests.bench.samples import median, percentile
from tests.bench.stage import BUSY, Stage
from tests.bench.streaming import in_lockstep, lockstep

# The name of each way, the route that is asked, who answers, and the request.
_Body = Callable[..., bytes]
_WAYS: tuple[tuple[str, str, str, _Body], ...] = (
    ("chat", CHAT, "", request_body),
    ("messages", MESSAGES, "-messages", messages_body),
    ("messages to chat", MESSAGES, "", messages_body),
    ("chat to messages", CHAT, "-messages", request_body),
    ("responses to chat", RESPONSES, "", responses_body),
)
_PASSED_THROUGH = ("messages",)
_DEARER = 1.25  # what a translation may cost
_LATE = {1: 2.0, 16: 3.0, 64: 8.0}  # ms that a later token may be late, by streams under way
_PAUSE = 0.02  # seconds between two tokens of one stream
_EVENTS = len(EVENTS)


async def dialect_costs(stage: Stage) -> list[Row]:
    """CPU time a call: rates by the clock move with whoever else uses the machine."""
    rows: list[Row] = []
    for kind, streams in (("JSON", False), ("stream", True)):
        targets = [_target(stage, *way, streams=streams) for way in _WAYS]
        rounds = stage.bench.plan.busy_rounds
        figures = await stage.compare(targets, connections=BUSY, rounds=rounds)
        chat = figures["chat"]
        rows.append(Row(f"{kind}, chat passed through", chat.rate, "/s"))
        for name, *_ in _WAYS[1:]:
            rows.append(_row(f"CPU a {kind}", name, figures[name].cpu_us, chat.cpu_us))
    return [*rows, *await _an_event_a_read(stage)]


async def _an_event_a_read(stage: Stage) -> list[Row]:
    """The same streams from a model that thinks between its tokens, as live ones do."""
    results: dict[str, list[LockstepResult]] = {name: [] for name, *_ in _WAYS}
    for _ in range(stage.bench.plan.rounds):
        for way in _WAYS:
            results[way[0]].append(await _fed_one_by_one(stage, *way))
    stage.answered += sum(one.begun for done in results.values() for one in done)
    costs = {
        name: median([one.cpu_us for one in done if one.cpu_us is not None])
        for name, done in results.items()
        if any(one.cpu_us is not None for one in done)
    }
    what = "CPU a frame, one a read"
    chat = costs.get("chat")
    rows = [Row(f"{what}, chat passed through", chat, "µs")]
    return rows + [_row(what, name, costs.get(name), chat) for name, *_ in _WAYS[1:]]


def _row(what: str, name: str, cost: float | None, chat: float | None) -> Row:
    is_translated = name not in _PASSED_THROUGH
    how = "translated" if is_translated else "passed through"
    bar: Bar | None = at_most_share(_DEARER) if is_translated else None
    return Row(f"{what}, {name} {how}", cost, "µs", chat, "chat passed through", bar)


async def _fed_one_by_one(
    stage: Stage, name: str, path: str, provider: str, body: _Body
) -> LockstepResult:
    model = f"lockstep{provider}/{MODEL}"
    token = stage.gateway.state.tenants[0].token
    requests = [
        request_bytes(path, body(model, stream=True, marker=marker(slot)), token=token)
        for slot in range(BUSY)
    ]
    script = TRANSLATED_MESSAGES if provider else TRANSLATED_CHAT
    return await in_lockstep(
        stage, stage.gateway.port, requests, stage.gateway.server, script=script
    )


def _target(
    stage: Stage, name: str, path: str, provider: str, body: _Body, *, streams: bool
) -> Target:
    model = f"{'sse' if streams else 'json'}{provider}/{MODEL}"
    tokens = tuple(tenant.token for tenant in stage.gateway.state.tenants[:1])
    url = stage.gateway.url(path)
    return Target(name, url, body(model, stream=streams), tokens, stage.gateway.server)


async def later_tokens(stage: Stage) -> list[Row]:
    """What is added to a token after the first, with 1, 16 and 64 models that take their time."""
    rows: list[Row] = []
    for streams, bar in _LATE.items():
        ends = {
            name: await lockstep(stage, name, streams=streams, pause=_PAUSE)
            for name in ("direct", "gateway", "door")
        }
        stage.answered += ends["gateway"].report.events // _EVENTS
        late = {name: percentile(one.delays, 0.99) * 1000 for name, one in ends.items()}
        added, bare = (late[name] - late["direct"] for name in ("gateway", "door"))
        name = f"Added to a later token, c={streams}, p99"
        rows.append(Row(name, added, "ms", bare, "bare app fed alike, our door", at_most(bar)))
    return rows
