"""Tokens: only what we signed, for its one purpose, until its time by the clock we were given."""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import jwt
import pytest

from core.keys import SigningKey
from core.tokens import ExpiredToken, InvalidToken, TokenSigner, new_opaque_token, token_hash

SECRET = "a secret of more than thirty-two characters"
NOW = datetime(2031, 5, 17, 12, 0, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
USER = UUID("11111111-2222-3333-4444-555555555555")


@pytest.fixture
def signer() -> TokenSigner:
    return TokenSigner(SigningKey.shared(SECRET))


def good_claims(**changes: object) -> dict[str, object]:
    claims: dict[str, object] = {"sub": str(USER), "type": "access", "exp": int((NOW + HOUR).timestamp())}
    return {key: value for key, value in {**claims, **changes}.items() if value is not ...}


def hand_made(header: Mapping[str, object], claims: object, secret: str = SECRET, digest: str = "sha256") -> str:
    """Sign a JWT by hand (RFC 7515), so that these tests trust no library about what is signed."""
    parts = [_base64(json.dumps(part).encode()) for part in (header, claims)]
    signature = hmac.new(secret.encode(), ".".join(parts).encode(), getattr(hashlib, digest)).digest()
    return ".".join([*parts, _base64(signature)])


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def hs256(claims: object, secret: str = SECRET) -> str:
    return hand_made({"alg": "HS256", "typ": "JWT"}, claims, secret)


def test_a_token_carries_the_claims_of_the_contract(signer: TokenSigner) -> None:
    tenant_id = str(uuid4())
    claims = {"tenant_id": tenant_id, "tenant": tenant_id, "role": "owner", "platform_role": None, "sid": "s"}
    token = signer.issue("access", USER, now=NOW, lifetime=HOUR, claims=claims)
    read = signer.read(token, "access", now=NOW)
    assert len(read.pop("jti")) == 32
    assert read == {
        "sub": str(USER),
        "type": "access",
        "iat": int(NOW.timestamp()),
        "exp": int(NOW.timestamp()) + 3600,
        **claims,
    }


def test_two_tokens_of_one_second_differ(signer: TokenSigner) -> None:
    tokens = {signer.issue("access", USER, now=NOW, lifetime=HOUR, claims={}) for _ in range(10)}
    assert len(tokens) == 10


def test_a_caller_may_choose_the_jti(signer: TokenSigner) -> None:
    token = signer.issue("refresh", USER, now=NOW, lifetime=HOUR, claims={"jti": "mine"})
    assert signer.read(token, "refresh", now=NOW)["jti"] == "mine"


def test_a_token_made_by_the_book_is_read(signer: TokenSigner) -> None:
    assert signer.read(hs256(good_claims()), "access", now=NOW)["sub"] == str(USER)


def test_a_token_of_ours_is_read_by_the_book(signer: TokenSigner) -> None:
    header, claims, signature = signer.issue("access", USER, now=NOW, lifetime=HOUR, claims={}).split(".")
    expected = hmac.new(SECRET.encode(), f"{header}.{claims}".encode(), hashlib.sha256).digest()
    assert base64.urlsafe_b64decode(signature + "=") == expected


class TestForgeries:
    def test_another_secret(self, signer: TokenSigner) -> None:
        with pytest.raises(InvalidToken):
            signer.read(hs256(good_claims(), secret=SECRET + "!"), "access", now=NOW)

    def test_changed_claims(self, signer: TokenSigner) -> None:
        header, _, signature = hs256(good_claims()).split(".")
        claims = _base64(json.dumps(good_claims(sub=str(uuid4()))).encode())
        with pytest.raises(InvalidToken):
            signer.read(f"{header}.{claims}.{signature}", "access", now=NOW)

    @pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", ""])
    def test_no_algorithm(self, signer: TokenSigner, name: str) -> None:
        parts = [_base64(json.dumps(part).encode()) for part in ({"alg": name, "typ": "JWT"}, good_claims())]
        for signature in ("", _base64(b"x" * 32)):
            with pytest.raises(InvalidToken):
                signer.read(".".join([*parts, signature]), "access", now=NOW)

    @pytest.mark.parametrize(("algorithm", "digest"), [("HS384", "sha384"), ("HS512", "sha512")])
    def test_another_algorithm_with_our_secret(self, signer: TokenSigner, algorithm: str, digest: str) -> None:
        token = hand_made({"alg": algorithm, "typ": "JWT"}, good_claims(), digest=digest)
        with pytest.raises(InvalidToken):
            signer.read(token, "access", now=NOW)

    def test_an_algorithm_that_lies(self, signer: TokenSigner) -> None:
        token = hand_made({"alg": "RS256", "typ": "JWT"}, good_claims())
        with pytest.raises(InvalidToken):
            signer.read(token, "access", now=NOW)

    @pytest.mark.parametrize(
        "text",
        ["", ".", "..", "...", "a.b.c", "Bearer x", "ü.ü.ü", "\udcff", "a.\ud800.b", "x" * 50_000, "null", "{}"],
        ids=ascii,
    )
    def test_noise(self, signer: TokenSigner, text: str) -> None:
        # A header's raw bytes reach us as lone surrogates: these too are nothing but a bad token.
        with pytest.raises(InvalidToken):
            signer.read(text, "access", now=NOW)

    @pytest.mark.parametrize("claims", [[], "text", 5, None, [["sub", "x"]]])
    def test_claims_that_are_no_object(self, signer: TokenSigner, claims: object) -> None:
        with pytest.raises(InvalidToken):
            signer.read(hs256(claims), "access", now=NOW)


class TestClaims:
    @pytest.mark.parametrize("name", ["sub", "exp", "type"])
    def test_a_missing_claim_is_refused(self, signer: TokenSigner, name: str) -> None:
        with pytest.raises(InvalidToken):
            signer.read(hs256(good_claims(**{name: ...})), "access", now=NOW)
        with pytest.raises(InvalidToken):
            signer.read(hs256(good_claims(**{name: None})), "access", now=NOW)

    @pytest.mark.parametrize("kind", ["refresh", "module", "password_reset", "", "ACCESS", ["access"], {}, 1])
    def test_another_purpose_is_refused(self, signer: TokenSigner, kind: object) -> None:
        with pytest.raises(InvalidToken):
            signer.read(hs256(good_claims(type=kind)), "access", now=NOW)

    def test_access_is_no_refresh(self, signer: TokenSigner) -> None:
        token = signer.issue("access", USER, now=NOW, lifetime=HOUR, claims={})
        with pytest.raises(InvalidToken):
            signer.read(token, "refresh", now=NOW)

    @pytest.mark.parametrize("exp", ["soon", "9999999999", 1e12, float("inf"), [9999999999], {}, True], ids=str)
    def test_an_expiry_that_is_no_whole_number_is_refused(self, signer: TokenSigner, exp: object) -> None:
        with pytest.raises(InvalidToken):
            signer.read(hs256(good_claims(exp=exp)), "access", now=NOW)

    @pytest.mark.parametrize("sub", [5, ["x"], {"id": "x"}, True])
    def test_a_subject_that_is_no_text_is_refused(self, signer: TokenSigner, sub: object) -> None:
        with pytest.raises(InvalidToken):
            signer.read(hs256(good_claims(sub=sub)), "access", now=NOW)


class TestExpiry:
    def test_is_told_by_the_given_clock(self, signer: TokenSigner) -> None:
        """The machine's clock is years away from the one that is handed in, on either side."""
        for now in (datetime(2001, 1, 1, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC)):
            token = signer.issue("access", USER, now=now, lifetime=HOUR, claims={})
            assert signer.read(token, "access", now=now + HOUR - timedelta(seconds=1))
            with pytest.raises(ExpiredToken):
                signer.read(token, "access", now=now + HOUR)

    def test_an_expired_forgery_is_a_forgery(self, signer: TokenSigner) -> None:
        with pytest.raises(InvalidToken) as caught:
            signer.read(hs256(good_claims(exp=1), secret=SECRET + "!"), "access", now=NOW)
        assert not isinstance(caught.value, ExpiredToken)

    def test_a_token_from_a_fast_clock_is_good(self, signer: TokenSigner) -> None:
        token = signer.issue("access", USER, now=NOW + timedelta(seconds=90), lifetime=HOUR, claims={})
        assert signer.read(token, "access", now=NOW)


def test_other_libraries_read_our_tokens(signer: TokenSigner) -> None:
    token = signer.issue("access", USER, now=NOW, lifetime=HOUR, claims={})
    header = jwt.get_unverified_header(token)
    assert header == {"alg": "HS256", "typ": "JWT", "kid": SigningKey.shared(SECRET).kid}


def test_opaque_tokens_are_long_random_and_url_safe() -> None:
    tokens = {new_opaque_token() for _ in range(1000)}
    assert len(tokens) == 1000
    assert all(len(base64.urlsafe_b64decode(token + "=")) == 32 for token in tokens)


def test_opaque_tokens_are_stored_as_sha256() -> None:
    # The example of FIPS 180-2, appendix B.1.
    assert token_hash("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
