"""Links of papers: only we can make one, and each opens one paper."""

import base64
import string
from uuid import uuid4

import pytest

from services.documents import DocumentLinks
from services.documents.errors import DocumentNotFound

pytestmark = pytest.mark.embedded

LINKS = DocumentLinks([b"new", b"old"], public_url="https://example.org")


def token_of(url: str) -> str:
    return url.removeprefix("https://example.org/invoices/")


def test_a_link_opens_its_paper_and_is_the_same_each_time() -> None:
    paper_id = uuid4()
    url = LINKS.url(paper_id)
    assert url == LINKS.url(paper_id)
    assert LINKS.read(token_of(url)) == paper_id


def test_a_link_stays_good_while_its_key_is_believed() -> None:
    paper_id = uuid4()
    token = token_of(DocumentLinks([b"old"], public_url="https://example.org").url(paper_id))
    assert LINKS.read(token) == paper_id
    with pytest.raises(DocumentNotFound):
        DocumentLinks([b"new"], public_url="https://example.org").read(token)


def test_no_other_token_opens_anything() -> None:
    token = token_of(LINKS.url(uuid4()))
    raw = bytearray(base64.urlsafe_b64decode(token + "="))
    for place in range(len(raw)):
        changed = raw.copy()
        changed[place] ^= 1
        with pytest.raises(DocumentNotFound):
            LINKS.read(base64.urlsafe_b64encode(changed).decode().rstrip("="))
    for nonsense in ("", "a", "ж", token[:-4], token + "AAAA", f"{token}==", uuid4().hex, "%00", "A" * 100_000):
        with pytest.raises(DocumentNotFound):
            LINKS.read(nonsense)


def test_a_paper_has_one_address_alone() -> None:
    token = token_of(LINKS.url(uuid4()))
    # Of the last letter's bits two tell nothing.
    letters = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    same = letters.index(token[-1])
    for other in (f"{token}=", *(token[:-1] + letters[same ^ bits] for bits in (1, 2, 3))):
        with pytest.raises(DocumentNotFound):
            LINKS.read(other)
