"""The address under which a paper can be seen without signing in: its id, sealed so that nobody can guess another's."""

import base64
import hmac
from collections.abc import Sequence
from uuid import UUID

from services.documents.errors import DocumentNotFound

_ID_BYTES = 16
_SEAL_BYTES = 16


class DocumentLinks:
    """Makes links with the first of `keys` and believes those of any; `public_url` has no trailing slash.

    Nothing is stored for a link: it is the same each time it is asked for, and good for as long as its key is believed.
    """

    def __init__(self, keys: Sequence[bytes], *, public_url: str) -> None:
        self._keys = tuple(keys)
        self._public_url = public_url

    def url(self, document_id: UUID) -> str:
        """Return the address of a document's page."""
        token = document_id.bytes + _seal(self._keys[0], document_id.bytes)
        return f"{self._public_url}/invoices/{_written(token)}"

    def read(self, token: str) -> UUID:
        """Return the id of the document that a link leads to; raises DocumentNotFound for what we did not make."""
        try:
            raw = base64.b64decode(token.encode("ascii") + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except ValueError as error:
            raise DocumentNotFound from error
        # Decoding overlooks padding and the bits of the last letter that tell nothing.
        if _written(raw) != token:
            raise DocumentNotFound
        named, seal = raw[:_ID_BYTES], raw[_ID_BYTES:]
        if len(named) != _ID_BYTES or not any(hmac.compare_digest(seal, _seal(key, named)) for key in self._keys):
            raise DocumentNotFound
        return UUID(bytes=named)


def _written(token: bytes) -> str:
    return base64.urlsafe_b64encode(token).decode().rstrip("=")


def _seal(key: bytes, named: bytes) -> bytes:
    return hmac.digest(key, named, "sha256")[:_SEAL_BYTES]
