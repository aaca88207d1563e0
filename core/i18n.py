"""Texts for people, in their language: a small catalogue read once from `locales/<language>/*.yml`.

A text's key is its file's name and its place in the file, joined by dots: `letters.invitation.subject`.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import yaml

DEFAULT_LOCALE = "en"

_LOCALES = Path(__file__).resolve().parent.parent / "locales"
_PREFERENCE = re.compile(r"\s*([A-Za-z]{1,8}|\*)(?:-[A-Za-z0-9-]+)?\s*(?:;\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*)?")


class UnknownText(KeyError):
    """A text was asked for that the default language does not have: a bug, never a user's fault."""


class Catalogue:
    """All texts of all languages; it never changes after it was read."""

    def __init__(self, texts: Mapping[str, Mapping[str, str]]) -> None:
        self._texts = texts

    @classmethod
    def load(cls, folder: Path) -> "Catalogue":
        """Read every language below `folder`; raises TypeError when a file holds anything but texts."""
        return cls(
            MappingProxyType(
                {language.name: MappingProxyType(_read(language)) for language in folder.iterdir() if language.is_dir()}
            )
        )

    @property
    def locales(self) -> frozenset[str]:
        """The languages there are, as ISO 639-1 codes."""
        return frozenset(self._texts)

    def keys(self, locale: str) -> frozenset[str]:
        """The keys one language has."""
        return frozenset(self._texts[locale])

    def template(self, key: str, locale: str) -> str:
        """Return a text with its `{name}` places open.

        An unknown language, and a text that a language lacks, fall back to English. Raises UnknownText.
        """
        template = self._texts.get(locale, {}).get(key) or self._texts[DEFAULT_LOCALE].get(key)
        if template is None:
            raise UnknownText(key)
        return template

    def text(self, key: str, locale: str, **values: object) -> str:
        """Return a text with its places filled; the values are taken as they are. Raises UnknownText."""
        return self.template(key, locale).format(**values)

    def negotiate(self, accept_language: str | None) -> str:
        """Choose a language by an `Accept-Language` header (RFC 9110, 12.5.4); English when none fits."""
        best, best_quality = DEFAULT_LOCALE, 0.0
        for item in (accept_language or "").split(","):
            match = _PREFERENCE.fullmatch(item)
            if match is None:
                continue
            language, quality = match[1].lower(), float(match[2] or 1)
            if language in self._texts and quality > best_quality:
                best, best_quality = language, quality
        return best


def _read(language: Path) -> dict[str, str]:
    texts: dict[str, str] = {}
    for file in sorted(language.glob("*.yml")):
        texts.update(_flat(file.stem, yaml.safe_load(file.read_text(encoding="utf-8"))))
    return texts


def _flat(key: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value.strip()
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _flat(f"{key}.{name}", item)
    else:
        raise TypeError(f"{key} must be a text or a group of texts")


# The texts are a part of the program, like its code, so they are read with it and a broken file stops the start.
TEXTS: Final = Catalogue.load(_LOCALES)
