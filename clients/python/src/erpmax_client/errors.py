"""What can end a client, or refuse one request of it."""

from collections.abc import Mapping
from typing import Any


class OrchestratorError(Exception):
    """Anything that this package raises; `code` is stable, the text is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class SignInRefused(OrchestratorError):
    """The password, the code or the refresh token is not accepted (any more): the user has to sign in anew.

    `code` is 2FA_REQUIRED for a user with a second factor when there is nothing to ask for it.
    """


class ConnectRefused(OrchestratorError):
    """The server will not have this user on this namespace, and trying again would not change that."""


class AccessRevoked(OrchestratorError):
    """The right to listen has ended while connected; `code` says why.

    SESSION_REVOKED, API_KEY_REVOKED, USER_INACTIVE, TENANT_ACCESS_REVOKED, TENANT_SUSPENDED or TENANT_DELETED.
    """


class PositionLost(OrchestratorError):
    """Events were missed that the server cannot tell any more, and there is no `on_reset` to reload the state.

    `code` is POSITION_LOST, `reason` one of `epoch`, `pruned`, `future`, `too_many`, `invalid`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__("POSITION_LOST", f"the missed events cannot be told any more ({reason})")
        self.reason = reason


class RequestRefused(OrchestratorError):
    """The server acknowledged an event of ours with an error; `details` is the whole of it.

    `retry_after_s` is set if it asks for patience.
    """

    def __init__(self, code: str, message: str, *, details: Mapping[str, Any]) -> None:
        super().__init__(code, message)
        self.details = details
        self.retry_after_s = retry_after_of(details)


class Unreachable(OrchestratorError):
    """The server cannot be reached, is not ready, or has not answered in time; the client itself tries again."""

    def __init__(self, message: str, *, code: str = "UNREACHABLE", retry_after_s: float | None = None) -> None:
        super().__init__(code, message)
        self.retry_after_s = retry_after_s


def retry_after_of(details: Mapping[str, Any]) -> float | None:
    """Read how many seconds the server asks to wait, if it does."""
    value = details.get("retry_after")
    return float(value) if isinstance(value, int | float) else None
