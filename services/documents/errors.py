"""Refusals about our own papers."""

from core.errors import NotFound


class DocumentNotFound(NotFound):
    """There is no such document, or it is another tenant's, or its link was not made by us."""

    message = "Document not found"
