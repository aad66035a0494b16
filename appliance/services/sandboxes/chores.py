"""Finds out what isolates sandboxes here, says so, and asks again when that may have changed."""

import logging
import math
from collections.abc import Awaitable, Callable

import trio

from appliance.config.sandbox_schema import SandboxConfig
from appliance.sandboxes.base import Proof, SandboxBackend
from appliance.services.sandboxes.sandboxes import Sandboxes

log = logging.getLogger(__name__)

AGAIN = 60.0  # seconds until a machine without isolation is tried again
_CLOSING = 20.0  # seconds for a backend to give back what it holds

Choose = Callable[[SandboxConfig], Awaitable[tuple[SandboxBackend | None, Proof]]]


class SandboxChores:
    """``choose`` tries what is configured and raises nothing."""

    def __init__(
        self, sandboxes: Sandboxes, *, choose: Choose, config: Callable[[], SandboxConfig]
    ) -> None:
        self._sandboxes = sandboxes
        self._choose = choose
        self._config = config
        self._changed = trio.Event()
        self._backends: list[SandboxBackend] = []  # the last one is in use
        self._said: Proof | None = None

    def reconsider(self) -> None:
        """The config may have changed."""
        self._changed.set()

    async def run(self) -> None:
        """Choose, and choose again when there is a reason to, until cancelled."""
        while True:
            config = self._config()
            chosen_for = _choice(config)
            backend, proof = await self._choose(config)
            await self._use(backend, proof)
            while _choice(self._config()) == chosen_for:
                self._changed = trio.Event()
                with trio.move_on_after(math.inf if proof.holds else AGAIN) as patience:
                    await self._changed.wait()
                if patience.cancelled_caught:
                    break

    async def aclose(self) -> None:
        """Give back what the backends hold. Nothing may run any more."""
        with trio.move_on_after(_CLOSING, shield=True):
            while self._backends:
                await self._backends.pop().aclose()

    async def _use(self, backend: SandboxBackend | None, proof: Proof) -> None:
        if backend is not None:
            if not self._backends:
                # Before the first sandbox of this gateway: what runs now was left behind.
                await backend.sweep()
            # What still runs with a former one needs it to the end.
            self._backends.append(backend)
        self._sandboxes.use(backend, proof)
        if self._said is None or (self._said.problem, self._said.backend) != (
            proof.problem,
            proof.backend,
        ):
            _say(proof)
        self._said = proof


def _choice(config: SandboxConfig) -> tuple[object, ...]:
    """What the choice depends on; limits and binds hold from one sandbox to the next."""
    return config.backend, config.uid, config.image


def _say(proof: Proof) -> None:
    facts = {"backend": proof.backend, "limits": proof.limits, "probes": len(proof.probes)}
    if not proof.holds:
        log.error("nothing is run in sandboxes", extra={**facts, "reason": proof.problem})
        return
    log.info("sandboxes are isolated", extra=facts)
    for warning in proof.warnings:
        log.warning("sandboxes", extra={"reason": warning})
