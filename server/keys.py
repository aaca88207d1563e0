"""The keys that tokens are signed with and secrets of merchants are sealed with, as the settings name them."""

from pathlib import Path

from core.keys import SigningKey, UnusableKey
from core.sealing import KeyRing, new_key, read_key
from core.tokens import TokenSigner
from server.settings import ConfigurationError, Settings, kept_secret, secret_key


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
