"""Refusals about who somebody is (texts of contract.md 1.5)."""

from core.errors import DomainError, ErrorKind, NotFound, PermissionDenied


class CredentialsRefused(DomainError):
    """The access token is malformed, forged or of another type."""

    kind = ErrorKind.UNAUTHENTICATED
    code = "AUTH_ERROR"
    message = "Could not validate credentials"


class TokenExpired(CredentialsRefused):
    """The access token was good once; refreshing gives a new one."""

    code = "TOKEN_EXPIRED"


class TokenRevoked(CredentialsRefused):
    """The access token's session has ended."""

    code = "TOKEN_REVOKED"


class UserGone(CredentialsRefused):
    """The access token's user is no more."""

    message = "User not found"


class UserInactive(PermissionDenied):
    """The access token's user has been switched off."""

    message = "Inactive user"


class LoginRefused(DomainError):
    """The address or the password is wrong; which of them is not told."""

    kind = ErrorKind.UNAUTHENTICATED
    code = "AUTH_ERROR"
    message = "Invalid email or password"


class AccountInactive(LoginRefused):
    """The password is right but the account has been switched off."""

    message = "User account is inactive"


class UserHasNoTenants(LoginRefused):
    """The user belongs to no tenant, so there is nothing to sign in to."""

    message = "User has no tenants"


class RefreshRefused(DomainError):
    """The refresh token is malformed, forged, unknown or its session is over."""

    kind = ErrorKind.UNAUTHENTICATED
    code = "AUTH_ERROR"
    message = "Invalid refresh token"


class RefreshExpired(RefreshRefused):
    """The refresh token was good once."""

    code = "TOKEN_EXPIRED"


class RefreshRevoked(RefreshRefused):
    """The refresh token's session has ended, perhaps just now because the token was used twice."""

    code = "TOKEN_REVOKED"


class RefreshUserGone(RefreshRefused):
    """The refresh token's user is no more or has been switched off."""

    message = "User not found or inactive"


class SessionNotFound(NotFound):
    """There is no such session, it has ended, or it is not the caller's."""

    message = "Session not found"


class EmailTaken(DomainError):
    """Somebody has signed up with this address, in whatever case it was written."""

    kind = ErrorKind.CONFLICT
    code = "ALREADY_EXISTS"
    message = "User with this email already exists"


class WrongPassword(DomainError):
    """The password that shall be changed, or that shall prove who asks, is another one."""

    code = "WRONG_PASSWORD"
    message = "The current password is wrong"


class WrongCode(DomainError):
    """The code is wrong, or was used before; which of them is not told."""

    code = "WRONG_CODE"
    message = "The code is wrong"


class ChallengeRefused(DomainError):
    """The challenge is unknown, answered, too old, or was answered wrongly too often."""

    kind = ErrorKind.UNAUTHENTICATED
    code = "CHALLENGE_REFUSED"
    message = "Sign in again"


class SecondFactorPresent(DomainError):
    """The user has a second factor already."""

    kind = ErrorKind.CONFLICT
    code = "ALREADY_EXISTS"
    message = "Two-factor authentication is on already"


class SecondFactorAbsent(DomainError):
    """The user has no second factor, or has not begun to set one up."""

    kind = ErrorKind.CONFLICT
    code = "CONFLICT"
    message = "Two-factor authentication is not set up"


class EmailTokenInvalid(DomainError):
    """The token that confirms an address is unknown, used, too old, or the account has another address by now."""

    code = "AUTH_ERROR"
    message = "Invalid or expired confirmation token"


class PhoneAbsent(NotFound):
    """The account has no phone that could be taken away."""

    code = "PHONE_ABSENT"
    message = "This account has no phone"


class EmailAbsent(NotFound):
    """The account has no address that could be taken away."""

    code = "EMAIL_ABSENT"
    message = "This account has no e-mail address"


class LastWayIn(DomainError):
    """Without this address or phone nobody could sign in to the account any more."""

    kind = ErrorKind.CONFLICT
    code = "LAST_SIGN_IN"
    message = "This is the only way to sign in to this account"


class ResetTokenInvalid(DomainError):
    """The password reset token is unknown, used or too old."""

    code = "AUTH_ERROR"
    message = "Invalid or expired reset token"


class RegistrationTokenInvalid(DomainError):
    """The token that finishes a sign-up is unknown, used or too old."""

    code = "AUTH_ERROR"
    message = "Invalid or expired registration token"
