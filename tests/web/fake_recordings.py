"""Recordings that a test makes up, at the address where the gateway has its own."""

import json
from collections.abc import Sequence
from typing import Any

from appliance.model.errors import NotFound
from appliance.transports.control.call import Call
from appliance.transports.control.route import Answer, Route, Who

PATH = "/v1/tenants/{id}/terminals/recordings/{recording}"


class FakeRecordings:
    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def add(
        self, name: str, header: dict[str, Any], events: Sequence[tuple[float, str, str]]
    ) -> None:
        lines: list[Any] = [{"version": 2, **header}, *events]
        self.kept[name] = "".join(json.dumps(line) + "\n" for line in lines).encode()

    async def get(self, call: Call[Any, Any]) -> Answer:
        found = self.kept.get(call.path["recording"])
        if found is None:
            raise NotFound("there is no such recording")
        return Answer(found, media_type="application/x-asciicast")

    def routes(self, others: Sequence[Route]) -> tuple[Route, ...]:
        """``others`` with this in place of the gateway's own."""
        made = Route(
            name="fake.recording",
            method="GET",
            path=PATH,
            who=Who.TENANT,
            summary="",
            handler=self.get,
        )
        return (*(each for each in others if not _is_same(each)), made)


def _is_same(route: Route) -> bool:
    return route.method == "GET" and route.path.startswith(PATH.rpartition("{")[0])
