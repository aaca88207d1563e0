"""The keys of this installation: what tokens are signed with, what merchants' secrets are sealed with, and the rest."""

import hmac
import secrets
from pathlib import Path

from core.keys import SigningKey, UnusableKey
from core.sealing import KeyRing, new_key, read_key
from core.tokens import TokenSigner
from server.data_dir import kept_secret
from server.settings import ConfigurationError, Settings


def derived_key(secret: str, purpose: str) -> bytes:
    """Return a key of its own for one purpose, 32 bytes, so that what one leaks tells nothing of the others."""
    return hmac.digest(secret.encode(), f"erpmax {purpose}".encode(), "sha256")


def secret_key(settings: Settings) -> str:
    """Return the signing secret; development makes one at first use and keeps it in `DATA_DIR`."""
    return settings.secret_key.get_secret_value() or kept_secret(
        settings, "secret_key", lambda: secrets.token_urlsafe(48)
    )


def all_secrets(settings: Settings) -> tuple[str, ...]:
    """Return the signing secret and those before it, the newest first."""
    return (secret_key(settings), *settings.previous_secrets)


def token_signer(settings: Settings) -> TokenSigner:
    """Return the signer of this installation; raises ConfigurationError when a key cannot be used."""
    if settings.jwt_algorithm == "HS256":
        key = SigningKey.shared(secret_key(settings))
    else:
        key = _read("JWT_PRIVATE_KEY_FILE", Path(settings.jwt_private_key_file))
        if key.signing is None:
            raise _unusable("JWT_PRIVATE_KEY_FILE", "it holds a public key, which signs nothing")
        if key.algorithm != settings.jwt_algorithm:
            raise _unusable("JWT_PRIVATE_KEY_FILE", f"its key is one for {key.algorithm}")
    previous = [SigningKey.shared(secret) for secret in settings.previous_secrets]
    previous += [_read("JWT_PREVIOUS_KEY_FILES", path) for path in settings.jwt_previous_key_files]
    return TokenSigner(key, previous=previous)


def key_ring(settings: Settings) -> KeyRing:
    """Return the ring of `ENCRYPTION_KEY`; development makes one at first use and keeps it in `DATA_DIR`."""
    newest = settings.encryption_key.get_secret_value() or kept_secret(settings, "encryption_key", new_key)
    return KeyRing([read_key(key) for key in (newest, *settings.previous_encryption_keys)])


def _read(name: str, path: Path) -> SigningKey:
    try:
        return SigningKey.pair(path.read_bytes())
    except OSError as error:
        raise _unusable(name, f"{path} cannot be read ({error.strerror})") from error
    except UnusableKey as error:
        raise _unusable(name, f"{path}: {error}") from error


def _unusable(name: str, why: str) -> ConfigurationError:
    return ConfigurationError(f"{name} is of no use: {why}. See docs/configuration.md.")
