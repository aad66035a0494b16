"""How a provider fails, in words that are safe to show.

What a provider says goes to whoever asked only where it is their doing, and
never as it came: it may quote a key or name an address of ours.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import ClassVar

from appliance.dialling import DialFailed
from appliance.model.embeddings import EmbeddingCall
from appliance.model.errors import (
    ContextTooLong,
    InvalidRequest,
    Kind,
    ProviderFailure,
    UpstreamFailed,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from appliance.protocols.answers import AnswerFailed, ErrorBody, ErrorReported, read_error_text
from appliance.providers.connections import (
    AnswerTooLarge,
    ConnectionLost,
    PoolBusy,
    TooSlow,
)

__all__ = [
    "KEY_TROUBLE",
    "AccountSpent",
    "ContextExceeded",
    "KeyRefused",
    "ProviderFailure",
    "Unreachable",
    "UpstreamFailed",
    "UpstreamRateLimited",
    "UpstreamRefused",
    "UpstreamTimeout",
    "UpstreamUnavailable",
    "connection_failure",
    "refusal",
    "refuse_tokens",
    "reported_failure",
    "retry_after",
    "sanitise",
]

LONGEST_WAIT = 24 * 3600.0  # seconds; what a provider asks beyond that is a mistake
_LONGEST_DETAIL = 300
_REFUSED = frozenset({400, 404, 405, 413, 415, 422})

_CONTEXT_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error"})
_CONTEXT_WORDS = re.compile(
    r"prompt is too long|maximum context length|context (?:length|window|size)", re.IGNORECASE
)
_QUOTA_CODES = frozenset({"insufficient_quota", "billing_error", "billing_hard_limit_reached"})
# Anthropic's own limits are refusals like any other, but for these words.
_QUOTA_WORDS = re.compile(
    r"credit balance is too low|reached your specified API usage limits", re.IGNORECASE
)
_OVERLOADED = frozenset({"overloaded_error", "server_overloaded", "service_unavailable"})
_RATE_LIMITED = frozenset({"rate_limit_error", "rate_limit_exceeded", "too_many_requests"})

_ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>)]+", re.IGNORECASE)
_IP_ADDRESS = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b")
# Long runs of key letters with a digit among them: no word of any language.
_KEY = re.compile(r"(?:bearer\s+)?\b(?=[\w*-]*\d)[A-Za-z0-9_*-]{20,}|\bsk-[\w*-]+", re.IGNORECASE)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200b-\u200f\u202a-\u202e]+")


class UpstreamRefused(ProviderFailure):
    """The provider finds fault with the request itself.

    ``status``, ``upstream_code`` and ``param`` are the provider's own, "" for none.
    """

    code = "upstream-refused"
    title = "The model provider refused the request"
    kind: ClassVar[Kind] = Kind.INVALID
    retryable = False

    def __init__(
        self, detail: str, *, status: int, upstream_code: str = "", param: str = ""
    ) -> None:
        super().__init__(detail, status=status)
        self.status = status
        self.upstream_code = upstream_code
        self.param = param
        # One provider may have retired a model that the next still has.
        self.retryable = status == 404


class ContextExceeded(ProviderFailure, ContextTooLong):
    """The provider says that the conversation is too long for the model."""

    retryable = False


class EmbeddingRefused(ProviderFailure, InvalidRequest):
    """This provider cannot embed what is asked in this way; the next in a chain may."""


class UpstreamRateLimited(ProviderFailure):
    """The provider asks us to wait."""

    code = "rate-limit-exceeded"
    title = "The model provider limits the rate"
    kind = Kind.LIMITED


class Unreachable(UpstreamUnavailable):
    """There is no connection to the provider: whatever it is asked, it will not answer."""


class KeyRefused(UpstreamFailed):
    """The provider does not know the key, or the key may not do this."""

    lasts = True


class AccountSpent(UpstreamFailed):
    """The account that the key belongs to has nothing left."""

    lasts = True


# What another key of the same provider may not meet.
KEY_TROUBLE = (KeyRefused, AccountSpent, UpstreamRateLimited)


def refuse_tokens(call: EmbeddingCall, who: str) -> None:
    """Raise :exc:`EmbeddingRefused` if ``call`` gives tokens: each model has its own."""
    if call.tokens:
        raise EmbeddingRefused.at(
            "input",
            f"{who} embeds texts, not token arrays",
            "send strings; with LangChain set check_embedding_ctx_length=False",
        )


def refusal(
    provider: str, status: int, headers: Mapping[bytes, bytes], body: bytes, *, now: datetime
) -> ProviderFailure:
    """The failure in an answer whose status is not 2xx."""
    error = read_error_text(body)
    wait = retry_after(headers, now=now)
    if 300 <= status < 400:
        return UpstreamFailed(
            f"{provider} answered with a redirect ({status}), which is not followed; "
            "base_url in the config should be where it leads"
        )
    if status in _REFUSED:
        return _fault(provider, status, error)
    if status in {401, 403}:
        return KeyRefused(f"{provider} does not accept the API key it was given ({status})")
    if status == 402 or _names(error) & _QUOTA_CODES:
        return _spent(provider)
    if status == 429:
        return UpstreamRateLimited(f"{provider} limits the rate of requests", retry_after=wait)
    if status in {408, 504}:
        return UpstreamTimeout(f"{provider} took too long ({status})", retry_after=wait)
    if status in {503, 529}:
        return UpstreamUnavailable(f"{provider} is overloaded or down ({status})", retry_after=wait)
    return UpstreamFailed(f"{provider} failed ({status})", retry_after=wait)


def reported_failure(provider: str, failure: AnswerFailed) -> ProviderFailure:
    """The failure in an answer that began well."""
    if not isinstance(failure, ErrorReported):
        return UpstreamFailed(f"{provider} sent an answer that cannot be used: {failure}")
    error = failure.error
    names = _names(error)
    if _is_context(error):
        return _context(provider, error)
    if names & (_RATE_LIMITED | {"429"}):
        return UpstreamRateLimited(f"{provider} limits the rate of requests")
    if names & _QUOTA_CODES:
        return _spent(provider)
    if names & (_OVERLOADED | {"503", "529"}):
        return UpstreamUnavailable(f"{provider} is overloaded or down")
    said = sanitise(error.message)
    return UpstreamFailed(f"{provider} failed while answering" + (f": {said}" if said else ""))


def connection_failure(provider: str, failure: Exception) -> ProviderFailure:
    """The failure behind an exception of :mod:`~appliance.providers.connections`."""
    match failure:
        case DialFailed():
            return Unreachable(f"{provider}: {failure}")
        case PoolBusy():
            return UpstreamUnavailable(
                f"all connections to {provider} are in use (max_connections)", retry_after=1
            )
        case TooSlow():
            return UpstreamTimeout(f"{provider} was silent for too long")
        case ConnectionLost():
            return UpstreamFailed(f"the connection to {provider} was lost")
        case AnswerTooLarge():
            return UpstreamFailed(f"{provider} sent more than an answer may hold")
        case AnswerFailed():
            return reported_failure(provider, failure)
    raise failure


# All that :func:`connection_failure` knows.
CONNECTION_TROUBLE = (
    DialFailed,
    PoolBusy,
    TooSlow,
    ConnectionLost,
    AnswerTooLarge,
    AnswerFailed,
)


def _fault(provider: str, status: int, error: ErrorBody) -> ProviderFailure:
    if _is_context(error):
        return _context(provider, error)
    if _names(error) & _QUOTA_CODES or _QUOTA_WORDS.search(error.message):
        return _spent(provider)
    said = sanitise(error.message) or "it did not say why"
    return UpstreamRefused(
        f"{provider} refused the request: {said}",
        status=status,
        upstream_code=_code(error.code),
        param=_identifier(error.param),
    )


def _spent(provider: str) -> AccountSpent:
    return AccountSpent(f"the account at {provider} has no quota left")


def _context(provider: str, error: ErrorBody) -> ContextExceeded:
    said = sanitise(error.message)
    return ContextExceeded(
        f"the conversation exceeds the context length of the model at {provider}"
        + (f": {said}" if said else "; send less of it")
    )


def _is_context(error: ErrorBody) -> bool:
    return bool(_names(error) & _CONTEXT_CODES or _CONTEXT_WORDS.search(error.message))


def _names(error: ErrorBody) -> frozenset[str]:
    return frozenset({error.type, error.code})


def _code(text: str) -> str:
    """Some write the status there once more."""
    return "" if text.isdigit() else _identifier(text)


def _identifier(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z0-9_.\[\]-]{1,100}", text) else ""


def sanitise(text: str) -> str:
    """A provider's words, fit for strangers: no keys, addresses, markup or control characters."""
    if "<html" in text.lower() or "<!doctype" in text.lower():
        return ""
    text = _UNPRINTABLE.sub(" ", text)
    text = _KEY.sub("[key]", _IP_ADDRESS.sub("[address]", _ADDRESS.sub("[address]", text)))
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_DETAIL else text[: _LONGEST_DETAIL - 1] + "…"


def retry_after(headers: Mapping[bytes, bytes], *, now: datetime) -> float | None:
    """How many seconds a provider asks us to wait: a number, or a date (RFC 9110 §10.2.3)."""
    if b"retry-after-ms" in headers:
        wait = _number(headers[b"retry-after-ms"])
        if wait is not None:
            return _bounded(wait / 1000)
    value = headers.get(b"retry-after")
    if value is None:
        return None
    wait = _number(value)
    if wait is None:
        try:
            wait = (parsedate_to_datetime(value.decode("latin-1")) - now).total_seconds()
        except (TypeError, ValueError):
            return None
    return _bounded(wait)


def _number(value: bytes) -> float | None:
    return float(value) if re.fullmatch(rb"\d{1,9}(?:\.\d{1,9})?", value.strip()) else None


def _bounded(wait: float) -> float:
    return min(max(0.0, wait), LONGEST_WAIT)
