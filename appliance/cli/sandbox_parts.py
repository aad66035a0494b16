"""The parts of a gateway that run commands, built bottom-up."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import trio

from appliance.config.sandbox_schema import SandboxConfig
from appliance.config.schema import GatewayConfig
from appliance.sandboxes.base import Proof, SandboxBackend
from appliance.sandboxes.detection import choose_backend, choose_groups
from appliance.sandboxes.egress import EgressProxy
from appliance.sandboxes.egress_certificates import Authority, AuthorityUnusable
from appliance.sandboxes.groups import Groups, NoGroups
from appliance.sandboxes.spawning import seal_inherited_descriptors
from appliance.services.disk_usage import DiskSizes
from appliance.services.sandboxes.books import SandboxBooks, SandboxCounters
from appliance.services.sandboxes.chores import SandboxChores
from appliance.services.sandboxes.disk_watch import DiskWatch, WatchedTenant
from appliance.services.sandboxes.egress import SandboxEgress
from appliance.services.sandboxes.sandboxes import Sandboxes
from appliance.storage.credentials import Vault
from appliance.storage.state import StateDirectory

log = logging.getLogger(__name__)

_PROVING = 60.0  # seconds
_CLOSING = 10.0  # seconds
_EGRESS = "egress"  # where the doors' sockets lie, below the state directory


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxFoundation:
    """What the rest of the gateway has built already."""

    state: StateDirectory
    vault: Vault
    config: Callable[[], GatewayConfig]
    clock: Callable[[], datetime]
    counters: SandboxCounters
    awake: Callable[[], Iterable[WatchedTenant]]
    disk_sizes: DiskSizes


class SandboxParts:
    def __init__(self, base: SandboxFoundation) -> None:
        self._base = base
        self._groups: Groups = NoGroups()
        self._proxy = _egress_proxy(base.state)
        egress = None if self._proxy is None else SandboxEgress(self._proxy, vault=base.vault)
        books = SandboxBooks(clock=base.clock, counters=base.counters)
        self.sandboxes = Sandboxes(books=books, clock=base.clock, egress=egress)
        self._watch = DiskWatch(
            tenants=base.awake,
            running=self.sandboxes.starts.of,
            free=base.state.free_space,
            clock=base.clock,
            learn=base.disk_sizes.learn,
        )
        self.sandboxes.watch = self._watch
        self._chores = SandboxChores(
            self.sandboxes, choose=self._choose, config=lambda: base.config().sandbox
        )

    @property
    def proof(self) -> Proof | None:
        """What the self-test found; None before it has ended."""
        return self.sandboxes.proof if self.sandboxes.is_proved else None

    def use_config(self, _: GatewayConfig) -> None:
        self._chores.reconsider()

    async def prepare(self) -> None:
        """What must come before anything else is started; takes some milliseconds."""
        seal_inherited_descriptors()
        self._groups = await choose_groups(self._base.state.path)
        if self._proxy is not None:
            self._proxy.sweep()

    async def run(self) -> None:
        """Prove the isolation, and watch what is written, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch.run)
            await self._chores.run()

    async def aclose(self) -> None:
        """Leave nothing on the machine. Nothing may run any more; bounded, not cancellable."""
        await self._chores.aclose()
        with trio.move_on_after(_CLOSING, shield=True):
            # Those of a self-test that was interrupted, which no backend has.
            await self._groups.aclose()

    async def _choose(self, config: SandboxConfig) -> tuple[SandboxBackend | None, Proof]:
        return await choose_backend(config, groups=self._groups, state_dir=self._base.state.path)


def prove_isolation(config: SandboxConfig) -> Proof:
    """Try the isolation from beside a gateway, touching nothing of it. Blocks; raises nothing."""
    with TemporaryDirectory(prefix="openclawmu-") as place:
        return trio.run(_prove, config, Path(place))


async def _prove(config: SandboxConfig, place: Path) -> Proof:
    with trio.move_on_after(_PROVING):
        groups = await choose_groups(place)
        backend, proof = await choose_backend(config, groups=groups, state_dir=place)
        if backend is not None:
            await backend.aclose()
        return proof
    return Proof(backend=config.backend, problem=f"the self-test took more than {_PROVING:g} s")


def _egress_proxy(state: StateDirectory) -> EgressProxy | None:
    try:
        authority = Authority.open(state)
    except AuthorityUnusable as error:
        # Without it sandboxes have no network; all else goes on.
        log.error("sandboxes have no way out", extra={"reason": error.detail})  # noqa: TRY400 - its text says it all
        return None
    return EgressProxy(directory=state.path / _EGRESS, authority=authority)
