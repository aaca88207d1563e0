"""The namespaces clients really connect to (contract.md 7.1), and where each event is heard (7.3)."""

from collections.abc import Iterator

from realtime.log import NumberedEvent

ROOTS = ("/", "/ws")
SUBJECTS = ("/notifications", "/provisioning", "/billing")
ALL = (*ROOTS, *SUBJECTS, *(f"/ws{subject}" for subject in SUBJECTS))


def places(event: NumberedEvent) -> Iterator[tuple[str, str]]:
    """Yield the (namespace, event name) pairs of an event: its own namespace, its `/ws` twin, and the root pair.

    A client hears an event once in each namespace it is connected to.
    """
    yield event.namespace, event.name
    yield f"/ws{event.namespace}", event.name
    for root in ROOTS:
        yield root, event.name


def subject_of(namespace: str) -> str | None:
    """Return the namespace whose events are heard on `namespace`; None on the roots, where all are."""
    subject = namespace.removeprefix("/ws")
    return subject if subject in SUBJECTS else None
