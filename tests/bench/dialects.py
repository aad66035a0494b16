"""What other dialects cost beside chat completions that are passed through."""

from collections.abc import Callable

from tests.bench.answers import EVENTS, MODEL, messages_body, request_body, responses_body
from tests.bench.gateway import CHAT, MESSAGES, RESPONSES
from tests.bench.load import Target
from tests.bench.report import Row, at_most, at_most_share
from tests.bench.samples import percentile
from tests.bench.stage import BUSY, Stage
from tests.bench.streaming import lockstep

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
            one = figures[name]
            is_translated = name not in _PASSED_THROUGH
            how = "translated" if is_translated else "passed through"
            bar = at_most_share(_DEARER) if is_translated else None
            what = f"CPU a {kind}, {name} {how}"
            rows.append(Row(what, one.cpu_us, "µs", chat.cpu_us, "chat passed through", bar))
    return rows


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
