"""E-mail addresses that look alike: one spelling for each, and none that reads as another one.

What an address is, the library `email-validator` knows. It lets every script of Unicode into the part before the @, so
that `ivan@` with a Cyrillic `а` would be another account that nobody can tell from the first. The rules are those of
Unicode's report on security (UTS 39, restriction levels), made a little narrower.
"""

import unicodedata
from typing import Final

# Longer than any address may be (RFC 5321); such a text is refused as it stands.
_LONGEST: Final = 320
# Letters of these are written together in one word, and none of them looks like another's.
_EAST_ASIAN: Final = frozenset(("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO"))
_LATIN: Final = "LATIN"
# Beyond these blocks, and at these three letters, Latin itself has doubles of its own letters.
_LAST_LATIN: Final = "\u017f"
_LATIN_DOUBLES: Final = frozenset("\u0130\u0131\u0138")


class LookalikeEmail(ValueError):
    """The address mixes scripts, or uses letters that read as others."""


def fold_email(text: str) -> str:
    """Return the address with characters that are only other forms of one, such as wide letters, made that one.

    >>> fold_email("ｉｖａｎ@example.com")
    'ivan@example.com'
    """
    return unicodedata.normalize("NFKC", text) if len(text) <= _LONGEST else text


def caseless(text: str) -> str:
    """Return the text in lower case letter by letter, as `lower()` of PostgreSQL makes it, which compares addresses.

    Python's own looks at a letter's neighbours, and makes two of one.

    >>> caseless("İVAN")
    'ivan'
    """
    return "".join(char.lower()[0] for char in text)


def refuse_lookalike(address: str) -> str:
    """Return a valid, folded address as it is; raises LookalikeEmail if another one could be read in its place.

    Before the @ and in each label of the domain there is one script. One that is not Latin before the @ is taken only
    where the domain uses it too, for people there have such mailboxes.
    """
    local, _, domain = address.rpartition("@")
    labels = [_scripts(label) for label in domain.split(".")]
    written = _scripts(local)
    for scripts in (written, *labels):
        if len(scripts) > 1 and not scripts <= _EAST_ASIAN:
            raise LookalikeEmail("The address mixes letters of several scripts")
    if not written <= {_LATIN}.union(*labels):
        raise LookalikeEmail("The address uses letters that its domain does not")
    return address


def _scripts(text: str) -> frozenset[str]:
    """Name the scripts of a text; ASCII digits and signs belong to all."""
    return frozenset(_script(char) for char in text if not char.isascii() or char.isalpha())


def _script(char: str) -> str:
    # Unicode's names begin with the script: "CYRILLIC SMALL LETTER A".
    script = unicodedata.name(char, "").partition(" ")[0].partition("-")[0]
    if unicodedata.category(char)[0] not in "LMN":
        raise LookalikeEmail("The address has a sign that is not used in addresses")
    if script == _LATIN and (char > _LAST_LATIN or char in _LATIN_DOUBLES):
        raise LookalikeEmail("The address has a letter that reads as another one")
    return script
