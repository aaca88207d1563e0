"""Coming back packet by packet, and the two ways in which that ends: live, or told to load the state anew."""

from collections.abc import Awaitable, Callable

from tests.namespaces.deploying import pay, state_of
from tests.namespaces.wire import Wire
from tests.support.people import Person
from tests.support.running import Orchestrator

Enter = Callable[..., Awaitable[Wire]]


async def goes_on(orchestrator: Orchestrator, owner: Person, wire: Wire, *, before: int = 0) -> None:
    """Check that a socket hears what is new, and only that."""
    numbers = await pay(orchestrator, owner.tenant_id, 2)
    await wire.hears(before + 2)
    assert wire.numbers[before:] == numbers
    await wire.drop()


async def reset_of(orchestrator: Orchestrator, owner: Person, wire: Wire, reason: str) -> None:
    """Check that a socket was told, once and after its greeting, to load its state anew and why."""
    await wire.until(lambda: wire.of("rt:reset"))
    state = await state_of(orchestrator, owner.tenant_id)
    ((told, *trailing),) = wire.of("rt:reset")
    assert told == {"reason": reason, "epoch": state.epoch, "head": state.head}
    assert trailing in ([], [f"{state.epoch}.{state.head}"])
    assert wire.names.index("connected") < wire.names.index("rt:reset")
