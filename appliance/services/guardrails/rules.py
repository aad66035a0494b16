"""The rules in force for a call, compiled once for a config."""

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from weakref import WeakValueDictionary

import msgspec
import trio

from appliance.config.guardrail_schema import Guardrail, compile_pattern
from appliance.config.schema import GatewayConfig
from appliance.model.errors import GuardrailBlocked, InvalidRequest
from appliance.providers.base import Reply
from appliance.services.call_requests import CallRequest
from appliance.services.estimates import input_to_reserve
from appliance.services.guardrails import personal_data
from appliance.services.guardrails.replies import GuardedReply
from appliance.services.guardrails.requests import effort, guarded_body
from appliance.services.guardrails.windows import Detector, Watch

log = logging.getLogger(__name__)

_MOST_KNOWN = 256  # tenants
_LONG = 64 * 1024  # bytes that are looked through beside the loop, by …
_FEW = 8  # detectors; by more of them, fewer bytes


@dataclass(frozen=True, slots=True)
class Rules:
    """``digest`` tells one set of rules from another."""

    request: Sequence[Detector]
    unseen: Sequence[Watch]  # attachments of a request
    answer: Sequence[Detector]
    limits: Sequence[Guardrail]
    digest: bytes

    async def admit(self, request: CallRequest, met: "Meetings") -> CallRequest:
        """``request`` as it may leave; raise :exc:`GuardrailBlocked` if it may not."""
        limit = request.output_limit
        tokens = input_to_reserve(request.prompt_bytes)
        for rule in self.limits:
            most = rule.max_input_tokens
            if most is not None and tokens > most:
                raise GuardrailBlocked(
                    rule.name, f"the request has about {tokens} tokens, of {most} that may be"
                )
            if rule.max_output_tokens is not None:
                least = rule.max_output_tokens
                limit = least if limit is None else min(limit, least)
        if self.answer and request.choices > 1:
            raise InvalidRequest.at("n", "must be 1 where answers are looked through")
        body = request.body
        if self.looks_at_requests:
            look = partial(guarded_body, body, self.request, met, unseen=self.unseen)
            if effort(body) * max(_FEW, len(self.request)) > _LONG * _FEW:
                body = await trio.to_thread.run_sync(look, limiter=met.thread)
            else:
                body = look()
        return replace(request, body=body, output_limit=limit)

    @property
    def looks_at_requests(self) -> bool:
        return bool(self.request or self.unseen)

    def guard(self, reply: Reply, model: str, met: "Meetings") -> Reply:
        return GuardedReply(reply, model, self.answer, met) if self.answer else reply


class Meetings:
    """The rules that a call has met so far; a rule that blocks ends it here."""

    def __init__(self, tenant: str, *, thread: trio.CapacityLimiter | None = None) -> None:
        self._tenant = tenant
        self.thread = thread  # for what takes long; None: one like any other
        self.rules: list[tuple[str, str]] = []

    def __call__(self, watch: Watch) -> None:
        told = (watch.rule, watch.action)
        if told not in self.rules:
            self.rules.append(told)
            log.warning(
                "a guardrail was met",
                extra={
                    "tenant": self._tenant,
                    "guardrail": watch.rule,
                    "action": watch.action,
                    "found": watch.kind or "pattern",
                },
            )
        if watch.action == "block":
            raise GuardrailBlocked(watch.rule)


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class _Known:
    given: object
    own: object
    rules: Rules


class RuleBook:
    """Compiled rules by the sections of the config they come from."""

    def __init__(self) -> None:
        # By identity: a config never changes, and its lists live as long as their entry.
        self._known: WeakValueDictionary[tuple[int, int], _Known] = WeakValueDictionary()
        # Those of one config for each tenant, however often it changes its own: three
        # hundred patterns can take 200 MB.
        self._in_use: OrderedDict[str, _Known] = OrderedDict()
        # As long as somebody waits for it: megabytes take seconds, of which a
        # tenant gets one thread and not all there are.
        self._threads: WeakValueDictionary[str, trio.CapacityLimiter] = WeakValueDictionary()

    def meetings(self, tenant: str) -> Meetings:
        """What the rules meet in one call of ``tenant``."""
        thread = self._threads.get(tenant)
        if thread is None:
            thread = self._threads[tenant] = trio.CapacityLimiter(1)
        return Meetings(tenant, thread=thread)

    def find(self, tenant: str, config: GatewayConfig) -> Rules | None:
        """The operator's rules and then the tenant's; None where there are none."""
        given, own = config.guardrails, config.defaults.guardrails
        if not given and not own:
            self._in_use.pop(tenant, None)
            return None
        key = (id(given), id(own))
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = _Known(given, own, _compiled([*given, *own]))
        self._in_use[tenant] = known
        if len(self._in_use) > _MOST_KNOWN:
            self._in_use.popitem(last=False)
        return known.rules


def _compiled(rules: Sequence[Guardrail]) -> Rules:
    return Rules(
        request=_detectors(rules, lambda rule: rule.on != "answer"),
        unseen=[
            Watch(rule.name, rule.action, kind)
            for rule in rules
            if rule.on != "answer"
            for kind in rule.unseen
        ],
        answer=_detectors(rules, lambda rule: rule.on != "request"),
        limits=[r for r in rules if r.max_input_tokens or r.max_output_tokens],
        digest=hashlib.sha256(msgspec.json.encode(rules)).digest(),
    )


def _detectors(
    rules: Sequence[Guardrail], applies: Callable[[Guardrail], bool]
) -> Sequence[Detector]:
    found = []
    for rule in rules:
        if applies(rule):
            found += [
                Detector(rule.name, rule.action, kind, personal_data.pattern_of(kind))
                for kind in rule.pii
            ]
            found += [
                Detector(rule.name, rule.action, "", compile_pattern(text)) for text in rule.deny
            ]
    return found
