"""What clients are told when a code is on its way (contract.md 2.3, 2.5, 11).

`start_link` opens the bot, for whoever the bot does not know yet; it is there for every phone alike, or for none.
`dev_code` is there only where no code leaves the house.
"""

from typing import Literal, Self

from models.phones import CODE_LIFETIME
from services.phones.codes import CodeRequested
from services.tenants.views import View


class SentView(View):
    """The answer of `request_code`."""

    sent: Literal[True] = True
    start_link: str | None = None
    dev_code: str | None = None

    @classmethod
    def of(cls, requested: CodeRequested) -> Self:
        return cls(start_link=requested.start_link, dev_code=requested.dev_code)


class CodeSentView(SentView):
    """The answer of `send-code`: what both generations of clients read, in one; `ttl` is in seconds."""

    status: Literal["ok"] = "ok"
    message: Literal["OTP sent"] = "OTP sent"
    ttl: int = int(CODE_LIFETIME.total_seconds())


class CodeOnItsWayView(View):
    """The answer of the third ancestor's `send-code`."""

    message: str
    start_link: str | None = None
    dev_code: str | None = None

    @classmethod
    def of(cls, requested: CodeRequested) -> Self:
        return cls(
            message="Code sent (Check console)" if requested.dev_code else "Code sent",
            start_link=requested.start_link,
            dev_code=requested.dev_code,
        )
