"""The terminals of one tenant, and who of support asked for them: known while it is awake."""

from typing import TYPE_CHECKING

from appliance.model.errors import NotFound, QuotaExceeded

if TYPE_CHECKING:
    from appliance.services.terminals.life import Terminal
    from appliance.services.terminals.support import SupportRequest

_MOST_ENDED = 20  # terminals that are still shown after their end


class TerminalBook:
    def __init__(self) -> None:
        self._terminals: dict[str, Terminal] = {}  # by id, in the order they were opened
        self.support: dict[str, SupportRequest] = {}  # what is asked or granted, by id

    @property
    def all(self) -> "list[Terminal]":
        """Those that ended a moment ago included."""
        return [each for each in self._terminals.values() if each.is_shown]

    @property
    def live(self) -> "list[Terminal]":
        return [each for each in self._terminals.values() if not each.has_ended]

    def add(self, terminal: "Terminal", *, most: int | None) -> None:
        """Take up ``terminal``, within the quota: those that are being opened count.

        Raises :exc:`QuotaExceeded`.
        """
        if most is not None and len(self.live) >= most:
            raise QuotaExceeded(
                f"the tenant may have {most} terminals at once; close one, or ask for more"
                if most
                else "the tenant may have no terminals (quota terminals)",
                limit=most,
            )
        self._terminals[terminal.id] = terminal
        ended = [each for each in self._terminals.values() if each.has_ended]
        for old in ended[: max(len(ended) - _MOST_ENDED, 0)]:
            old.forgotten.set()
            self.discard(old)

    def discard(self, terminal: "Terminal") -> None:
        self._terminals.pop(terminal.id, None)

    def require(self, terminal_id: str) -> "Terminal":
        """A terminal that can be looked at; :exc:`NotFound` if there is none of this id."""
        terminal = self._terminals.get(terminal_id)
        if terminal is None or not terminal.is_shown:
            raise NotFound("there is no such terminal")
        return terminal

    def require_live(self, terminal_id: str) -> "Terminal":
        terminal = self.require(terminal_id)
        if terminal.has_ended:
            raise NotFound("there is no such terminal")
        return terminal
