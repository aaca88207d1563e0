"""`orchestrator check-config`: shows the settings without their secrets and reaches every store they name."""

from pydantic import SecretStr

from server.settings import Settings
from server.stores import open_database
from server.wiring import Part, build


async def report(settings: Settings) -> int:
    """Print every setting and the state of every store; returns 0 when all are well, 1 otherwise."""
    for name, value in sorted(settings.model_dump().items()):
        print(f"{name.upper():32} {_shown(value)}")
    async with open_database(settings) as engine, build(settings, engine, Part()) as house:
        states = await house.readiness.check()
    print()
    for store, state in states.items():
        print(f"{store:32} {state}")
    return 1 if any(state.startswith("error") for state in states.values()) else 0


def _shown(value: object) -> str:
    if isinstance(value, SecretStr):
        return "(set)" if value.get_secret_value() else "(not set)"
    return ", ".join(str(item) for item in value) if isinstance(value, tuple) else str(value)
