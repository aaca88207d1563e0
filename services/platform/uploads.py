"""Pictures and films for the public pages (contract.md 3.8): taken from masters, shown to everybody."""

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

from core.errors import DomainError, ErrorKind, NotFound
from providers.uploads import MediaTooLarge, UnknownMedia, UploadFolder
from services.identity import Principal
from services.platform.content import require_master
from services.platform.views import UploadView
from services.unit_of_work import PlatformScope, RequestTrace, UnitOfWorkFactory

_SCOPE = PlatformScope("the platform's content belongs to no tenant")
_NAME_LENGTH = 255


class UploadRefused(DomainError):
    """There is no file in the form, or its content is no picture and no film."""

    code = "UPLOAD_REFUSED"
    message = "Send one file: PNG, JPEG, GIF, WebP, MP4 or WebM"


class UploadTooLarge(DomainError):
    """The file is larger than its kind may be."""

    kind = ErrorKind.TOO_LARGE
    code = "PAYLOAD_TOO_LARGE"
    message = "Pictures may have 10 MB, films 50 MB"


class UploadNotFound(NotFound):
    """No such file was uploaded."""

    message = "File not found"


class Uploads:
    """The use cases around uploaded files."""

    def __init__(self, *, units: UnitOfWorkFactory, folder: UploadFolder) -> None:
        self._units = units
        self._folder = folder

    async def admit(self, actor: Principal) -> None:
        """Raise MasterRequired for whoever may not upload, before anything is read from them."""
        async with self._units(_SCOPE) as uow:
            await require_master(uow, actor)

    async def keep(
        self, actor: Principal, chunks: AsyncIterator[bytes], *, filename: str, trace: RequestTrace | None = None
    ) -> UploadView:
        """Keep a file under a name of our own. Raises MasterRequired, UploadRefused and UploadTooLarge."""
        async with self._units(_SCOPE) as uow:
            await require_master(uow, actor)
            stem = f"{int(uow.now.timestamp() * 1000)}-{secrets.token_hex(8)}"
        try:
            kept = await self._folder.keep(chunks, stem=stem)
        except UnknownMedia as error:
            raise UploadRefused from error
        except MediaTooLarge as error:
            raise UploadTooLarge from error
        async with self._units(_SCOPE, trace=trace) as uow:
            uow.audit(
                "content.uploaded",
                actor_id=actor.user_id,
                tenant_id=None,
                subject=("upload", kept.name),
                details={"size": kept.size, "type": kept.kind.type},
            )
        return UploadView(
            url=f"/platform/uploads/{kept.name}",
            filename=filename[:_NAME_LENGTH] or kept.name,
            size=kept.size,
            type=kept.kind.type,
        )

    def find(self, name: str) -> tuple[Path, str]:
        """Return where an uploaded file lies and its media type; raises UploadNotFound."""
        found = self._folder.find(name)
        if found is None:
            raise UploadNotFound
        return found[0], found[1].type
