"""The folder that `DATA_DIR` names, and the secrets that development makes and keeps there."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from server.settings import ConfigurationError, Settings


def prepare_data_dir(path: Path) -> None:
    """Make the folder that `DATA_DIR` names unless it is there; raises ConfigurationError when it is no use."""
    why = "this process may not write there"
    try:
        path.mkdir(parents=True, exist_ok=True)
        usable = os.access(path, os.W_OK | os.X_OK)
    except FileExistsError:
        why, usable = "it is not a folder", False
    except OSError as error:
        why, usable = (error.strerror or str(error)).lower(), False
    if not usable:
        raise ConfigurationError(
            f"DATA_DIR={path} cannot be used: {why}. Name a folder that can be made or written. "
            "See docs/configuration.md."
        )


def kept_secret(settings: Settings, name: str, make: Callable[[], str]) -> str:
    """Return the secret that is kept in `DATA_DIR` under a name, made at its first use."""
    path = settings.data_dir / name
    prepare_data_dir(settings.data_dir)
    # Written aside and linked into place, so that two processes that start at once agree on one whole secret.
    draft = path.with_name(f"{name}.{os.getpid()}")
    draft.touch(mode=0o600)
    draft.write_text(make())
    with suppress(FileExistsError):
        path.hardlink_to(draft)
    draft.unlink()
    return path.read_text()
