"""What is settled about terminals before there is one: sizes, rights, reasons to end."""

from enum import StrEnum

COLUMNS = range(10, 501)
ROWS = range(5, 201)
MOST_VARIABLES = 200
LONGEST_TITLE = 200  # characters


class Mode(StrEnum):
    """What somebody who is attached may do."""

    READ = "read"
    WRITE = "write"


class EndReason(StrEnum):
    EXIT = "exit"  # the program ended by itself
    CLOSED = "closed"
    IDLE = "idle"
    LIFETIME = "lifetime"
    DETACHED = "detached"
    REVOKED = "revoked"
    SUPPORT = "support"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def message(self) -> str:
        """For the people who looked on; empty where there is nothing to tell."""
        return _MESSAGES[self]


_MESSAGES = {
    EndReason.EXIT: "",
    EndReason.CLOSED: "the terminal was closed",
    EndReason.IDLE: "the terminal was closed: nobody typed anything for too long",
    EndReason.LIFETIME: "the terminal was closed: it was open for as long as a terminal may be",
    EndReason.DETACHED: "the terminal was closed: nobody came back to it",
    EndReason.REVOKED: "the terminal was closed: the token that opened it was revoked or expired",
    EndReason.SUPPORT: "the terminal was closed: support access has ended",
    EndReason.STOPPED: "the terminal was closed: the tenant was stopped, or the gateway restarts",
    EndReason.FAILED: "the terminal was closed: something broke on our side",
}


class SupportState(StrEnum):
    REQUESTED = "requested"
    GRANTED = "granted"
    DENIED = "denied"
    ENDED = "ended"


class SupportPolicy(StrEnum):
    """What a tenant lets support do; ``READ`` and ``WRITE`` are what needs no consent."""

    NEVER = "never"
    ASK = "ask"
    READ = "read"
    WRITE = "write"

    def consents_to(self, mode: Mode) -> bool:
        """Whether nobody has to be asked."""
        return self is SupportPolicy.WRITE or self.value == mode.value


def fitting_size(columns: int, rows: int) -> tuple[int, int]:
    """The nearest size a terminal may have."""
    return _within(columns, COLUMNS), _within(rows, ROWS)


def shown_title(text: str) -> str:
    """``text`` on one line, without what a terminal or a page would act on."""
    return "".join(each if each.isprintable() else " " for each in text)[:LONGEST_TITLE].strip()


def utf16_length(text: str) -> int:
    """How long ``text`` is to clients, whose strings are UTF-16."""
    return len(text.encode("utf-16-le")) // 2


def _within(value: int, span: range) -> int:
    return min(max(value, span[0]), span[-1])
