"""Whose webhooks PayPal's adapter believes: an RSA signature, and the certificate that vouches for it.

PayPal signs `transmission id|time|webhook id|crc32 of the body` and names the address of its certificate. That address
comes from whoever sent the request, so only PayPal's own is followed, and what is found there is believed only as far
as a trusted root vouches for it, for one of PayPal's two names. Strangers may name addresses that lead nowhere: nobody
waits for those but themselves, and they push out none that is good.
"""

import asyncio
import base64
import binascii
import logging
import re
import warnings
import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509 import Certificate, DNSName, load_pem_x509_certificate, load_pem_x509_certificates
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from core.clock import Clock
from providers.http import HttpClient, HttpFailure
from providers.payments.contract import TOLERANCE
from providers.payments.errors import BadSignature, ProviderUnavailable, SignatureFault
from providers.payments.signature import find_header

_SIGNERS: Final = ("messageverificationcerts.paypal.com", "messageverificationcerts.sandbox.paypal.com")
_HOSTS: Final = frozenset({"api.paypal.com", "api-m.paypal.com", "api.sandbox.paypal.com", "api-m.sandbox.paypal.com"})
_PATH: Final = re.compile(r"/v1/notifications/certs/CERT-[0-9A-Za-z-]{1,80}")
_BLOCK: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_ALGORITHM: Final = "SHA256withRSA"
# Deliveries are repeated for three days, and nothing says that a repetition is dated anew.
_OLDEST: Final = timedelta(days=3) + TOLERANCE
# PayPal uses one at a time.
_KEPT: Final = 16
# How long an address without a good certificate is not asked again, and how many of these are remembered.
_REFUSED_FOR: Final = timedelta(minutes=5)
_REFUSED_KEPT: Final = 1000
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Transmission:
    """What PayPal says of one delivery in its headers."""

    transmission_id: str
    sent_at: datetime
    time_text: str
    signature: bytes
    cert_url: str

    @classmethod
    def read(cls, headers: Mapping[str, str]) -> "Transmission":
        """Read the headers.

        Raises:
            BadSignature: one of them is missing or malformed, or the signature is of another kind.
        """
        values = {name: find_header(headers, f"PAYPAL-{name}") or "" for name in _HEADERS}
        signature, sent_at = _decode(values["TRANSMISSION-SIG"]), _moment(values["TRANSMISSION-TIME"])
        if not signature or sent_at is None or not all(values.values()) or values["AUTH-ALGO"] != _ALGORITHM:
            raise BadSignature(SignatureFault.INVALID_HEADER, "Invalid PayPal signature headers")
        return cls(
            transmission_id=values["TRANSMISSION-ID"],
            sent_at=sent_at,
            time_text=values["TRANSMISSION-TIME"],
            signature=signature,
            cert_url=values["CERT-URL"],
        )

    def refuse_wrong_time(self, now: datetime) -> None:
        """Refuse what PayPal would no longer repeat, and what claims to be of the future.

        Raises:
            BadSignature: the transmission is too old, or later than `now`.
        """
        if self.sent_at - now > TOLERANCE:
            raise BadSignature(SignatureFault.FUTURE, "PayPal webhook timestamp is outside the tolerance")
        if now - self.sent_at > _OLDEST:
            raise BadSignature(SignatureFault.STALE, "PayPal webhook timestamp is outside the tolerance")


_HEADERS: Final = ("TRANSMISSION-ID", "TRANSMISSION-TIME", "TRANSMISSION-SIG", "CERT-URL", "AUTH-ALGO")


def is_signed(body: bytes, sent: Transmission, *, webhook_id: str, certificate: Certificate) -> bool:
    """Tell whether a certificate's key signed this transmission of these bytes to this webhook."""
    key = certificate.public_key()
    if not isinstance(key, RSAPublicKey):
        return False
    message = f"{sent.transmission_id}|{sent.time_text}|{webhook_id}|{zlib.crc32(body)}"
    try:
        key.verify(sent.signature, message.encode("utf-8", "replace"), PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True


class Certificates:
    """The certificates that PayPal signs with, fetched once each.

    Args:
        roots: PEM certificates of the authorities that are trusted.
        api_base: where the API is; a certificate at the same origin is PayPal's, as is one at PayPal's own API.
    """

    def __init__(self, http: HttpClient, *, roots: bytes, api_base: str, clock: Clock) -> None:
        self._http = http
        self._store = Store(_read_roots(roots))
        self._origin = _origin(api_base)
        self._clock = clock
        self._known: OrderedDict[str, Certificate] = OrderedDict()
        self._refused_until: OrderedDict[str, datetime] = OrderedDict()
        self._fetching: dict[str, asyncio.Lock] = {}

    def find(self, url: str) -> Certificate | None:
        """Return a certificate that was fetched and is still good."""
        known = self._known.get(url)
        now = self._clock.now()
        if known is None or not known.not_valid_before_utc <= now <= known.not_valid_after_utc:
            return None
        return known

    async def fetch(self, url: str) -> None:
        """Fetch a certificate unless it is known or not PayPal's; one that nobody trusted signed is not kept.

        Raises:
            ProviderUnavailable: it cannot be had now.
        """
        if not self._may_be_paypals(url) or self._is_settled(url):
            return
        lock = self._fetching.setdefault(url, asyncio.Lock())
        try:
            async with lock:
                if not self._is_settled(url):
                    self._keep(url, await self._ask(url))
        finally:
            self._fetching.pop(url, None)

    def _is_settled(self, url: str) -> bool:
        """Tell whether there is nothing to ask: the certificate is there, or was refused a moment ago."""
        refused_until = self._refused_until.get(url)
        return self.find(url) is not None or (refused_until is not None and self._clock.now() < refused_until)

    async def _ask(self, url: str) -> Certificate | None:
        try:
            answer = await self._http.request("paypal", "GET", url, repeatable=True)
        except HttpFailure as failure:
            _log.warning("paypal certificate failed: %s", failure.reason)
            raise ProviderUnavailable(retryable=True, retry_after_s=failure.retry_after_s) from failure
        if answer.status != 200:
            _log.warning("paypal certificate refused: status=%s", answer.status)
            return None
        return self._trusted(answer.body)

    def _keep(self, url: str, trusted: Certificate | None) -> None:
        if trusted is None:
            self._refused_until[url] = self._clock.now() + _REFUSED_FOR
        else:
            self._known[url] = trusted
        for kept, limit in ((self._known, _KEPT), (self._refused_until, _REFUSED_KEPT)):
            while len(kept) > limit:
                kept.popitem(last=False)

    def _trusted(self, pem: bytes) -> Certificate | None:
        try:
            leaf, *others = load_pem_x509_certificates(pem)
        except ValueError:
            return None
        return leaf if any(self._vouches(leaf, others, name) for name in _SIGNERS) else None

    def _vouches(self, leaf: Certificate, others: Sequence[Certificate], name: str) -> bool:
        policy = PolicyBuilder().store(self._store).time(self._clock.now())
        try:
            policy.build_server_verifier(DNSName(name)).verify(leaf, list(others))
        except VerificationError:
            return False
        return True

    def _may_be_paypals(self, url: str) -> bool:
        try:
            parts = urlsplit(url)
            host = parts.hostname or ""
            is_paypals = parts.scheme == "https" and host in _HOSTS and parts.port in (None, 443)
        except ValueError:
            return False
        is_plain = parts.username is None and not parts.query and not parts.fragment
        return is_plain and (is_paypals or _origin(url) == self._origin) and _PATH.fullmatch(parts.path) is not None


def _read_roots(pem: bytes) -> list[Certificate]:
    """Read the trusted authorities, but for those whose certificates the library is about to refuse (RFC 5280)."""
    found = []
    for block in _BLOCK.findall(pem):
        with warnings.catch_warnings():
            warnings.simplefilter("error", CryptographyDeprecationWarning)
            try:
                found.append(load_pem_x509_certificate(block))
            except CryptographyDeprecationWarning:
                _log.debug("a root certificate is left out")
    return found


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _moment(text: str) -> datetime | None:
    try:
        read = datetime.fromisoformat(text)
        return None if read.tzinfo is None else read.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc
