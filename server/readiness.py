"""Whether this process can work: a look at each store it needs."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

Probe = Callable[[], Awaitable[object]]

_TIMEOUT_S = 2.0


class StoreReadiness:
    """Probes stores side by side; one that does not answer in time counts as away."""

    def __init__(self, probes: Mapping[str, Probe | None]) -> None:
        self._probes = probes
        # Set when the process has been told to stop: it works off what it has and wants nothing new.
        self.draining = False

    async def check(self) -> dict[str, str]:
        """Return the state of each store: `ok`, `not configured` or `error: <kind of fault>`."""
        states = await asyncio.gather(*(self._state(probe) for probe in self._probes.values()))
        process = {"process": "error: draining"} if self.draining else {}
        return {**dict(zip(self._probes, states, strict=True)), **process}

    async def _state(self, probe: Probe | None) -> str:
        if probe is None:
            return "not configured"
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await probe()
        except Exception as error:  # noqa: BLE001
            # Readiness reports whatever is wrong by its kind only: addresses and credentials stay inside.
            return f"error: {type(error).__name__}"
        return "ok"
