"""The second factor: the codes of RFC 6238, each good once, and recovery codes that people can type."""

import base64
import re
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, unquote, urlsplit

import pyotp
import pytest

from core.otp import CodeHasher
from core.totp import (
    accepted_counter,
    matching_recovery_digest,
    new_recovery_codes,
    new_totp_secret,
    provisioning_uri,
    recovery_digest,
)

# Appendix B of RFC 6238, cut to six digits: the secret is the ASCII text "12345678901234567890".
RFC_SECRET = base64.b32encode(b"12345678901234567890").decode()
RFC_CODES = [
    (59, "287082"),
    (1111111109, "081804"),
    (1111111111, "050471"),
    (1234567890, "005924"),
    (2000000000, "279037"),
]
NOW = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)
STEP = timedelta(seconds=30)


def code_at(secret: str, moment: datetime) -> str:
    return pyotp.TOTP(secret).at(moment)


class TestCodes:
    @pytest.mark.parametrize(("seconds", "code"), RFC_CODES)
    def test_the_examples_of_the_rfc(self, seconds: int, code: str) -> None:
        now = datetime.fromtimestamp(seconds, UTC)
        assert accepted_counter(RFC_SECRET, code, now=now, last_counter=None) == seconds // 30

    @pytest.mark.parametrize("offset", [-1, 0, 1])
    def test_a_step_to_each_side_is_good(self, offset: int) -> None:
        secret = new_totp_secret()
        code = code_at(secret, NOW + offset * STEP)
        expected = int(NOW.timestamp()) // 30 + offset
        assert accepted_counter(secret, code, now=NOW, last_counter=None) == expected

    @pytest.mark.parametrize("offset", [-3, -2, 2, 3])
    def test_further_off_is_not(self, offset: int) -> None:
        code = code_at(RFC_SECRET, NOW + offset * STEP)
        near = {code_at(RFC_SECRET, NOW + near * STEP) for near in (-1, 0, 1)}
        assert code not in near
        assert accepted_counter(RFC_SECRET, code, now=NOW, last_counter=None) is None

    def test_a_code_is_good_once(self) -> None:
        code = code_at(RFC_SECRET, NOW)
        counter = accepted_counter(RFC_SECRET, code, now=NOW, last_counter=None)
        assert counter is not None
        assert accepted_counter(RFC_SECRET, code, now=NOW, last_counter=counter) is None
        assert accepted_counter(RFC_SECRET, code, now=NOW + STEP, last_counter=counter) is None

    def test_a_later_code_ends_those_before_it(self) -> None:
        ahead = accepted_counter(RFC_SECRET, code_at(RFC_SECRET, NOW + STEP), now=NOW, last_counter=None)
        assert accepted_counter(RFC_SECRET, code_at(RFC_SECRET, NOW), now=NOW, last_counter=ahead) is None

    def test_the_next_code_is_good_after_one_was_used(self) -> None:
        first = accepted_counter(RFC_SECRET, code_at(RFC_SECRET, NOW), now=NOW, last_counter=None)
        assert first is not None
        later = NOW + STEP
        code = code_at(RFC_SECRET, later)
        assert accepted_counter(RFC_SECRET, code, now=later, last_counter=first) == first + 1

    def test_spaces_as_apps_show_them_are_ignored(self) -> None:
        code = code_at(RFC_SECRET, NOW)
        assert accepted_counter(RFC_SECRET, f" {code[:3]} {code[3:]}", now=NOW, last_counter=None) is not None

    def test_other_input_is_refused_and_nothing_raises(self) -> None:
        code = code_at(RFC_SECRET, NOW)
        fullwidth = code.translate({ord("0") + digit: ord("０") + digit for digit in range(10)})
        for typed in ("", "1", code[:5], code + "0", f"-{code[1:]}", fullwidth, f"{code}\n", "\ud800" * 6, "9" * 10**6):
            assert accepted_counter(RFC_SECRET, typed, now=NOW, last_counter=None) is None

    def test_a_code_of_another_secret_is_refused(self) -> None:
        own, other = (code_at(secret, NOW) for secret in (RFC_SECRET, "A" * 32))
        assert own != other
        assert accepted_counter(RFC_SECRET, other, now=NOW, last_counter=None) is None


class TestProvisioning:
    def test_secrets_are_160_random_bits(self) -> None:
        secrets = {new_totp_secret() for _ in range(100)}
        assert len(secrets) == 100
        assert all(len(base64.b32decode(secret)) == 20 for secret in secrets)

    def test_the_address_is_what_authenticator_apps_read(self) -> None:
        uri = urlsplit(provisioning_uri(RFC_SECRET, account="anna@example.org", issuer="ERPMax & Co"))
        assert (uri.scheme, uri.netloc) == ("otpauth", "totp")
        assert unquote(uri.path) == "/ERPMax & Co:anna@example.org"
        query = parse_qs(uri.query)
        assert query["secret"] == [RFC_SECRET]
        assert query["issuer"] == ["ERPMax & Co"]

    def test_an_app_that_reads_the_address_makes_codes_that_are_accepted(self) -> None:
        secret = new_totp_secret()
        app = pyotp.parse_uri(provisioning_uri(secret, account="+79991234567", issuer="ERPMax"))
        assert isinstance(app, pyotp.TOTP)
        assert accepted_counter(secret, app.at(NOW), now=NOW, last_counter=None) is not None


class TestRecovery:
    hasher = CodeHasher("a secret of the server")

    def test_there_are_ten_that_differ(self) -> None:
        codes = new_recovery_codes()
        assert len(set(codes)) == 10
        assert all(re.fullmatch(r"[0-9a-hjkmnp-tv-z]{5}-[0-9a-hjkmnp-tv-z]{5}", code, re.ASCII) for code in codes)
        assert not set(codes) & set(new_recovery_codes())

    def test_each_finds_its_own_hash_and_no_other(self) -> None:
        codes = new_recovery_codes()
        digests = [recovery_digest(code, self.hasher, subject="user:1") for code in codes]
        found = [matching_recovery_digest(code, digests, self.hasher, subject="user:1") for code in codes]
        assert found == digests
        assert len(set(digests)) == 10

    def test_a_burnt_one_is_gone(self) -> None:
        codes = new_recovery_codes()
        digests = {recovery_digest(code, self.hasher, subject="user:1") for code in codes}
        burnt = matching_recovery_digest(codes[3], digests, self.hasher, subject="user:1")
        assert burnt is not None
        digests.remove(burnt)
        assert matching_recovery_digest(codes[3], digests, self.hasher, subject="user:1") is None

    @pytest.mark.parametrize(
        "typed", ["7h20q-m0x1d", "7H20Q-M0X1D", "7h20qm0x1d", " 7h20q m0x1d ", "7h2oq-mOxld", "7h20q-m0xId"]
    )
    def test_what_people_make_of_it_when_typing_is_forgiven(self, typed: str) -> None:
        digest = recovery_digest("7h20q-m0x1d", self.hasher, subject="user:1")
        assert matching_recovery_digest(typed, [digest], self.hasher, subject="user:1") == digest

    @pytest.mark.parametrize(
        "typed",
        ["", "-", "7h20q", "7h20q-m0x1e", "7h20q-m0x1d1", "7h20q-m0x1d\x00", "７h20q-m0x1d", "\ud800", "7" * 10**6],
        ids=lambda text: ascii(text[:12]),
    )
    def test_nothing_else_is(self, typed: str) -> None:
        digest = recovery_digest("7h20q-m0x1d", self.hasher, subject="user:1")
        assert matching_recovery_digest(typed, [digest], self.hasher, subject="user:1") is None

    def test_the_sign_of_the_kelvin_is_no_k(self) -> None:
        digest = recovery_digest("kkkkk-kkkkk", self.hasher, subject="user:1")
        assert matching_recovery_digest("\u212akkkk-kkkkk", [digest], self.hasher, subject="user:1") is None

    def test_they_belong_to_one_user(self) -> None:
        digest = recovery_digest("7h20q-m0x1d", self.hasher, subject="user:1")
        assert matching_recovery_digest("7h20q-m0x1d", [digest], self.hasher, subject="user:2") is None
