"""How a command speaks to the driver that runs it (see providers.provisioning.output) and refuses."""

import sys


class Refused(Exception):
    """The command cannot be carried out, now or later; the message says why."""


def say(text: str) -> None:
    """Write a line of log text."""
    # Flushed at once, or a pipe would hold it back until the command ends.
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def progress(done: int, total: int) -> None:
    """State that `done` of `total` parts of this step are finished."""
    say(f"::progress {100 * done // total}")


def output(name: str, value: str) -> None:
    """State an output of this step."""
    say(f"::output {name}={value}")
