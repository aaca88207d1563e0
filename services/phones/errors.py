"""Refusals about phones and the codes that prove them (texts of contract.md 2.3, 2.5)."""

from core.errors import DomainError, ErrorKind, NotFound, PermissionDenied, Unavailable


class PhoneCodeRefused(DomainError):
    """The code is wrong, too old, used, or was guessed at too often, or there is none; which of them is not told."""

    code = "INVALID_CODE"
    message = "Invalid or expired code"


class PhoneTaken(DomainError):
    """Somebody has signed up with this phone; told only to whoever has proven that it is theirs."""

    kind = ErrorKind.BAD_REQUEST
    code = "ALREADY_EXISTS"
    message = "User with this phone already exists"


class PhoneUnknown(NotFound):
    """Nobody has signed up with this phone; told only to whoever has proven that it is theirs."""

    message = "User not found"


class PhoneBlocked(PermissionDenied):
    """The phone belongs to an account that has been switched off; told only to whoever has proven the phone."""

    code = "PHONE_BLOCKED"
    message = "This phone number is blocked. Please contact support."


class ChannelInactive(DomainError):
    """Codes were asked for by a messenger that this server does not use."""

    code = "CHANNEL_INACTIVE"
    message = "This provider is not active"

    def __init__(self, channel: str) -> None:
        super().__init__(f"Provider {channel} is not active")


class NoChannel(Unavailable):
    """This server has no way at all to bring a code to somebody."""

    message = "Service unavailable"


class MessengerUnknown(NotFound):
    """A webhook of a messenger was called that this server does not use."""

    message = "Messenger not found"
