"""Pictures and films that were uploaded: told by their content, kept in a folder under names of our own."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

_MEGABYTE: Final = 1024 * 1024
_NAME: Final = re.compile(r"[0-9]{1,15}-[0-9a-f]{8,32}\.([a-z0-9]{3,4})")


@dataclass(frozen=True, slots=True)
class MediaKind:
    """A kind of file that browsers only ever show, and never run."""

    type: str
    extension: str
    max_bytes: int


_PICTURE_BYTES, _FILM_BYTES = 10 * _MEGABYTE, 50 * _MEGABYTE
_PNG = MediaKind("image/png", "png", _PICTURE_BYTES)
_JPEG = MediaKind("image/jpeg", "jpg", _PICTURE_BYTES)
_GIF = MediaKind("image/gif", "gif", _PICTURE_BYTES)
_WEBP = MediaKind("image/webp", "webp", _PICTURE_BYTES)
_MP4 = MediaKind("video/mp4", "mp4", _FILM_BYTES)
_WEBM = MediaKind("video/webm", "webm", _FILM_BYTES)
_BY_EXTENSION: Final = {kind.extension: kind for kind in (_PNG, _JPEG, _GIF, _WEBP, _MP4, _WEBM)}
# How much of a file tells its kind.
_HEAD: Final = 16


class UnknownMedia(Exception):
    """The content is of no kind that is kept; SVG is not, for it can hold programs."""


class MediaTooLarge(Exception):
    """There is more of it than its kind may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptUpload:
    """A file that is kept."""

    name: str
    size: int
    kind: MediaKind


class UploadFolder:
    """Keeps files in one folder; several web processes need to share it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def keep(self, chunks: AsyncIterator[bytes], *, stem: str) -> KeptUpload:
        """Write a file as it comes; it is there as a whole or not at all. Raises UnknownMedia and MediaTooLarge."""
        head = b""
        async for chunk in chunks:
            head += chunk
            if len(head) >= _HEAD:
                break
        kind = media_kind(head)
        name = f"{stem}.{kind.extension}"
        part = self._folder / f"{name}.part"
        file = await asyncio.to_thread(self._open, part)
        try:
            size = await _write(file, head, chunks, kind.max_bytes)
            await asyncio.to_thread(part.rename, self._folder / name)
        finally:
            file.close()
            await asyncio.to_thread(part.unlink, missing_ok=True)
        return KeptUpload(name=name, size=size, kind=kind)

    def find(self, name: str) -> tuple[Path, MediaKind] | None:
        """Return where a kept file lies and its kind; no other file is ever found."""
        match = _NAME.fullmatch(name)
        kind = _BY_EXTENSION.get(match[1]) if match else None
        path = self._folder / name
        return (path, kind) if kind is not None and path.is_file() else None

    def _open(self, path: Path) -> BinaryIO:
        self._folder.mkdir(parents=True, exist_ok=True)
        return path.open("xb")


def media_kind(head: bytes) -> MediaKind:
    """Tell a file's kind by its first bytes, whatever its name says; raises UnknownMedia."""
    starts = {b"\x89PNG\r\n\x1a\n": _PNG, b"\xff\xd8\xff": _JPEG, b"GIF87a": _GIF, b"GIF89a": _GIF}
    for start, kind in starts.items():
        if head.startswith(start):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return _WEBP
    if head[4:8] == b"ftyp" and head[8:12] in (b"isom", b"iso2", b"iso5", b"iso6", b"mp41", b"mp42", b"avc1", b"M4V "):
        return _MP4
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return _WEBM
    raise UnknownMedia


async def _write(file: BinaryIO, head: bytes, chunks: AsyncIterator[bytes], max_bytes: int) -> int:
    size = len(head)
    await asyncio.to_thread(file.write, head)
    async for chunk in chunks:
        size += len(chunk)
        if size > max_bytes:
            raise MediaTooLarge
        await asyncio.to_thread(file.write, chunk)
    await asyncio.to_thread(file.flush)
    return size
