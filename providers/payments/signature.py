"""Signature headers: `t=<unix seconds>,v1=<hex>` as Stripe made common, its window in time, and the bare digest."""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from providers.payments.contract import TOLERANCE
from providers.payments.errors import BadSignature, SignatureFault

_HEX_DIGITS = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class SignatureHeader:
    """A parsed header: the signed moment in unix seconds and every `v1` signature, of which any may match."""

    timestamp: int
    signatures: tuple[str, ...]

    @property
    def signed_at(self) -> datetime:
        return datetime.fromtimestamp(self.timestamp, UTC)


def find_header(headers: Mapping[str, str], name: str) -> str | None:
    """Look a header up whatever the case of its name; a plain dict would only find the exact spelling."""
    wanted = name.lower()
    return next((value for key, value in headers.items() if key.lower() == wanted), None)


def parse_signature_header(value: str | None, *, provider: str) -> SignatureHeader:
    """Parse the header; schemes other than `v1` are ignored, as Stripe asks.

    Raises:
        BadSignature: the header is missing, has not exactly one readable time, or holds no `v1` signature.
    """
    # Text beyond ASCII cannot be a signature, and comparing it in constant time raises TypeError.
    if value is not None and value.isascii():
        pairs = [item.strip().partition("=") for item in value.split(",")]
        times = [text for key, _, text in pairs if key == "t"]
        signatures = tuple(text for key, _, text in pairs if key == "v1" and text)
        # Two times would let the one that is signed differ from the one that is checked for age.
        if len(times) == 1 and times[0].isdigit() and len(times[0]) <= 12 and signatures:
            return SignatureHeader(int(times[0]), signatures)
    raise BadSignature(SignatureFault.INVALID_HEADER, f"Invalid {provider}-Signature header")


def refuse_wrong_time(timestamp: int, *, now: datetime, provider: str) -> None:
    """Refuse what was signed too long ago and, as Stripe's SDK does not, what claims to be of the future.

    Raises:
        BadSignature: `timestamp` (unix seconds) lies further than `TOLERANCE` from `now`.
    """
    age_s = now.timestamp() - timestamp
    if abs(age_s) > TOLERANCE.total_seconds():
        fault = SignatureFault.STALE if age_s > 0 else SignatureFault.FUTURE
        raise BadSignature(fault, f"{provider} webhook timestamp is outside the tolerance")


def refuse_wrong_digest(
    body: bytes, headers: Mapping[str, str], *, secrets: Sequence[str], header: str, provider: str, prefix: str = ""
) -> None:
    """Refuse a body unless `header` holds `prefix` and the hex HMAC-SHA256 of it under one of `secrets`.

    Raises:
        BadSignature: there is no secret, the header is missing or malformed, or it is not the body's digest.
    """
    if not secrets:
        raise BadSignature(SignatureFault.NOT_CONFIGURED, f"{provider} webhook secret is not configured")
    value = (find_header(headers, header) or "").strip()
    given = value.removeprefix(prefix).lower()
    if not value.startswith(prefix) or len(given) != 64 or not set(given) <= _HEX_DIGITS:
        raise BadSignature(SignatureFault.INVALID_HEADER, f"Invalid {header} header")
    digests = [hmac.new(secret.encode(), body, hashlib.sha256).hexdigest() for secret in secrets]
    if not any(hmac.compare_digest(given, digest) for digest in digests):
        raise BadSignature(SignatureFault.INVALID_SIGNATURE, f"Invalid {provider} webhook signature")


def split_secrets(setting: str | None) -> tuple[str, ...]:
    """Read a setting that holds webhook secrets separated by commas, as during a roll of the secret.

    >>> split_secrets("whsec_new, whsec_old")
    ('whsec_new', 'whsec_old')
    """
    return tuple(secret for part in (setting or "").split(",") if (secret := part.strip()))
