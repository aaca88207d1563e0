"""Refusals to the platform's own people (texts of contract.md 3.6 and 3.7)."""

from core.errors import DomainError, ErrorKind, NotFound


class UserNotFound(NotFound):
    """Nobody has this id or this phone."""

    message = "User not found"


class OwnAccount(DomainError):
    """Whoever switched their own account off could not switch it on again."""

    kind = ErrorKind.CONFLICT
    code = "OWN_ACCOUNT"
    message = "You cannot switch off your own account"


class OwnSecondFactor(OwnAccount):
    """Whoever can sign in switches their own second factor off themselves, by a code of it."""

    message = "You cannot reset your own second factor"


class RoleNotCreatable(DomainError):
    """Only the platform's masters are made here; everybody else signs up or is invited."""

    code = "ROLE_NOT_ALLOWED"
    message = "Only users with the role platform_master can be created"


class NotImpersonable(DomainError):
    """Nobody acts in the name of the platform's people, or of somebody whose account is switched off."""

    kind = ErrorKind.CONFLICT
    code = "NOT_IMPERSONABLE"
    message = "Nobody may act in the name of this user"


class TariffNotFound(NotFound):
    """No tariff has this id."""

    message = "Tariff not found"


class PlanNotFound(NotFound):
    """No plan has this id."""

    message = "Plan not found"


class PlanSlugTaken(DomainError):
    """Another plan, sold or retired, has this slug."""

    kind = ErrorKind.CONFLICT
    code = "ALREADY_EXISTS"
    message = "A plan with this slug already exists"


class TrialNotRetirable(DomainError):
    """Every new tenant begins with this plan."""

    kind = ErrorKind.CONFLICT
    code = "TRIAL_NOT_RETIRABLE"
    message = "The plan of the trials cannot be retired"
