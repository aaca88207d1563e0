"""Uploads over REST: taken by their content, within bounds, from masters only, and served as what they are."""

from io import BytesIO
from typing import Any

import pytest
from aiohttp import ClientSession, FormData
from sqlalchemy import update

from models.users import User
from services.unit_of_work import PlatformScope
from tests.support.people import Person, RegisterCompany, address, request
from tests.support.running import Orchestrator

pytestmark = pytest.mark.embedded

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
MP4 = b"\0\0\0\x18ftypisom" + bytes(100)
PATH = "platform/content/upload"
MEGABYTE = 1024 * 1024


@pytest.fixture
async def master(orchestrator: Orchestrator, company: RegisterCompany) -> Person:
    """Somebody who may edit the platform's content."""
    person = await company()
    async with orchestrator.units(PlatformScope("a test makes a master")) as uow:
        await uow.session.execute(update(User).where(User.id == person.user_id).values(is_platform_master=True))
    return person


async def send(person: Person, content: bytes, *, name: str = "file", filename: str = "a.txt") -> tuple[int, Any]:
    form = FormData()
    form.add_field(name, BytesIO(content), filename=filename, content_type="text/html")
    headers = {"Authorization": f"Bearer {person.token}"}
    return await request(person.http, "POST", address(person.url, PATH), data=form, headers=headers)


async def test_a_file_is_what_its_content_says(master: Person, http: ClientSession) -> None:
    for content, media_type, extension in ((PNG, "image/png", "png"), (MP4, "video/mp4", "mp4")):
        status, answer = await send(master, content, filename="evil.html")
        assert status == 200, answer
        assert set(answer) == {"url", "filename", "size", "type"}
        assert (answer["filename"], answer["size"], answer["type"]) == ("evil.html", len(content), media_type)
        assert answer["url"].startswith("/platform/uploads/")
        assert answer["url"].endswith(f".{extension}")
        async with http.get(master.url + answer["url"]) as response:
            assert (response.status, await response.read()) == (200, content)
            assert response.headers["Content-Type"] == media_type
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert "default-src 'none'" in response.headers["Content-Security-Policy"]


async def test_what_is_no_picture_or_too_large_is_refused_and_not_kept(
    master: Person, orchestrator: Orchestrator
) -> None:
    folder = orchestrator.settings.data_dir / "uploads"
    before = set(folder.iterdir()) if folder.exists() else set()
    for content in (b"", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"<html>", b"GIF8", b"RIFF0000WAVEfmt "):
        status, answer = await send(master, content, filename="a.png")
        assert (status, answer["error"]["code"]) == (400, "UPLOAD_REFUSED"), content
    assert (await send(master, PNG, name="other"))[0] == 400
    assert (await master.post(PATH, {"file": "text"}))[0] == 400
    status, answer = await send(master, PNG + bytes(10 * MEGABYTE))
    assert (status, answer["error"]["code"]) == (413, "PAYLOAD_TOO_LARGE")
    assert (set(folder.iterdir()) if folder.exists() else set()) == before
    # Larger than any other body may be.
    assert (await send(master, PNG + bytes(2 * MEGABYTE)))[0] == 200


async def test_a_broken_form_is_refused(master: Person) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n' + PNG
    headers = {"Authorization": f"Bearer {master.token}", "Content-Type": "multipart/form-data; boundary=x"}
    bodies = (b"", b"--x\r\n-0.5--x--\r\n", b"--x--\r\n", b'--x\r\nBad\x03: "\r\n\r\n1\r\n--x--\r\n', b"nothing")
    for body in bodies:
        status, answer = await request(master.http, "POST", address(master.url, PATH), data=body, headers=headers)
        assert status == 400, (body[-40:], answer)
        assert answer["error"]["code"] == "UPLOAD_REFUSED"
    # HTTP itself says that a body is complete, also to whoever forgets to close the form.
    for body in (part, part + b"\r\n--x--\r\n"):
        status, answer = await request(master.http, "POST", address(master.url, PATH), data=body, headers=headers)
        assert (status, answer["size"]) == (200, len(PNG))


async def test_only_uploads_are_served(master: Person, orchestrator: Orchestrator, http: ClientSession) -> None:
    (orchestrator.settings.data_dir / "secret.png").write_bytes(PNG)
    for name in ("..%2Fsecret.png", "secret.png", "..", "1-00000000.png", "1-00000000.png.part"):
        async with http.get(f"{master.url}/platform/uploads/{name}") as response:
            assert response.status == 404, name


async def test_nobody_else_uploads(company: RegisterCompany) -> None:
    owner = await company()
    status, answer = await send(owner, PNG)
    assert (status, answer["error"]["code"]) == (403, "PERMISSION_DENIED")
    assert (await request(owner.http, "POST", address(owner.url, PATH)))[0] == 401
