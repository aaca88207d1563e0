"""The platform's own people signing in where the second ancestor let them in (contract.md 2.4)."""

from collections.abc import Callable
from contextlib import suppress
from typing import Literal

from core.errors import PermissionDenied
from core.phones import PhoneInvalid, parse_phone
from models.users import User
from services.auth.sessions import Sessions
from services.auth.tokens import Device
from services.auth.views import ChallengeView, SessionView
from services.tenants.views import View
from services.unit_of_work import RequestTrace

StaffRole = Literal["super_admin", "platform_master"]


class StaffRoleRequired(PermissionDenied):
    """The password is right, but its owner is none of those who sign in here."""


class StaffSessionView(View):
    """A sign-in of one of the platform's people; `token` is the access token."""

    token: str
    refresh_token: str
    role: StaffRole


class StaffSignIn:
    """Lets in whoever has a role on the platform, and opens no session for anybody else."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def login(
        self, *, login: str, password: str, role: StaffRole, device: Device, trace: RequestTrace | None = None
    ) -> StaffSessionView | ChallengeView:
        """Check the password of an address or a phone, or get a challenge for the second factor.

        Raises what `Sessions.login` raises, and StaffRoleRequired once the password has proved right.
        """
        outcome = await self._check(login, password, admit=_only(role), device=device, trace=trace)
        if isinstance(outcome, ChallengeView):
            return outcome
        return StaffSessionView(token=outcome.access_token, refresh_token=outcome.refresh_token, role=role)

    async def _check(
        self,
        login: str,
        password: str,
        *,
        admit: Callable[[User], None],
        device: Device,
        trace: RequestTrace | None,
    ) -> SessionView | ChallengeView:
        # What is no phone is an address.
        with suppress(PhoneInvalid):
            phone = parse_phone(login)
            return await self._sessions.login_by_phone(
                phone=phone, password=password, device=device, trace=trace, admit=admit
            )
        return await self._sessions.login(email=login, password=password, device=device, trace=trace, admit=admit)


def _only(role: StaffRole) -> Callable[[User], None]:
    def admit(user: User) -> None:
        if role == "super_admin" and not user.is_superuser:
            raise StaffRoleRequired("Access denied. Super admin role required.")
        if role == "platform_master" and not user.is_platform_master:
            raise StaffRoleRequired("Access denied. Platform master role required.")

    return admit
