"""What isolates sandboxes is found out at the start, and again when that may have changed."""

import logging
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import MockClock

from appliance.config.sandbox_schema import SandboxConfig, SandboxLimits
from appliance.sandboxes.base import Proof, SandboxBackend
from appliance.services.sandboxes.books import NoCounters, SandboxBooks
from appliance.services.sandboxes.chores import AGAIN, SandboxChores
from appliance.services.sandboxes.sandboxes import Sandboxes
from tests.books import HandClock
from tests.fakes.sandboxes import PROOF, FakeBackend

BROKEN = Proof(backend="bubblewrap", problem="bwrap is not installed")


@dataclass
class Bench:
    config: SandboxConfig = field(default_factory=SandboxConfig)
    answers: list[Proof] = field(default_factory=list)  # the last one stays
    asked: list[tuple[float, str]] = field(default_factory=list)
    made: list[FakeBackend] = field(default_factory=list)

    def __post_init__(self) -> None:
        clock = HandClock()
        self.sandboxes = Sandboxes(
            books=SandboxBooks(clock=clock, counters=NoCounters()), clock=clock
        )
        self.chores = SandboxChores(self.sandboxes, choose=self.choose, config=lambda: self.config)

    async def choose(self, config: SandboxConfig) -> tuple[SandboxBackend | None, Proof]:
        await trio.sleep(1)
        self.asked.append((trio.current_time(), config.backend))
        proof = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not proof.holds:
            return None, proof
        self.made.append(FakeBackend(proof=proof))
        return self.made[-1], proof


async def test_it_is_asked_once_while_it_holds(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = Bench(answers=[PROOF])
    nursery.start_soon(bench.chores.run)
    assert not bench.sandboxes.is_proved
    await trio.sleep(10_000)

    assert bench.asked == [(1, "auto")]
    assert bench.sandboxes.proof is PROOF
    bench.sandboxes.require()
    assert bench.made[0].swept == 1, "what a former gateway left is ended first"


async def test_a_machine_without_isolation_is_tried_again_and_said_once(
    nursery: trio.Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(answers=[BROKEN, BROKEN, PROOF])
    with caplog.at_level(logging.INFO):
        nursery.start_soon(bench.chores.run)
        await trio.sleep(AGAIN)
        assert bench.sandboxes.proof.problem == "bwrap is not installed"
        await trio.sleep(3 * AGAIN)

    assert [at for at, _ in bench.asked] == [1, AGAIN + 2, 2 * AGAIN + 3]
    assert bench.sandboxes.proof.holds
    said = [record.message for record in caplog.records]
    assert said == ["nothing is run in sandboxes", "sandboxes are isolated"]


async def test_a_change_of_what_it_depends_on_is_a_reason_to_choose_again(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = Bench(answers=[PROOF])
    nursery.start_soon(bench.chores.run)
    await trio.sleep(10)
    bench.config = SandboxConfig(limits=SandboxLimits(pids=5))
    bench.chores.reconsider()
    await trio.sleep(10)
    assert len(bench.asked) == 1, "limits hold from one sandbox to the next"

    bench.config = SandboxConfig(backend="podman")
    bench.chores.reconsider()
    await trio.sleep(10)
    assert bench.asked[1:] == [(21, "podman")]
    old, new = bench.made
    assert (old.closed, new.swept) == (False, 0), "what runs goes on"

    await bench.chores.aclose()
    assert (old.closed, new.closed) == (True, True)


async def test_what_is_not_enforced_is_said(
    nursery: trio.Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(answers=[Proof(backend="bubblewrap", warnings=["nobody limits memory"])])
    nursery.start_soon(bench.chores.run)
    await trio.sleep(10)

    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.__dict__["reason"] == "nobody limits memory"
