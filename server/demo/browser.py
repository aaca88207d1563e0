"""As much of a browser as the demo needs: cookies, redirects, and pressing a button of a form."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urljoin

from aiohttp import ClientError, ClientResponse, ClientSession, CookieJar

from server.demo.failure import StepFailed


@dataclass(frozen=True, slots=True)
class Button:
    """A button that sends its form; `action` overrides the form's."""

    name: str
    value: str
    action: str


@dataclass(slots=True)
class Form:
    """A form with what it sends besides the pressed button."""

    action: str
    method: str
    fields: list[tuple[str, str]] = field(default_factory=list)
    buttons: list[Button] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the browser shows after the last redirect."""

    url: str
    status: int
    text: str


class Browser:
    """One person's browser; to be closed."""

    def __init__(self) -> None:
        # Without `unsafe` aiohttp keeps no cookies of addresses such as 127.0.0.1.
        self._http = ClientSession(cookie_jar=CookieJar(unsafe=True))

    async def open(self, url: str) -> Seen:
        """Go to an address; raises StepFailed when nobody is there."""
        return await self._go("GET", url, None)

    async def press(self, page: Seen, button: str) -> Seen:
        """Press the button of that name, value or target on a page; raises StepFailed when it is not there."""
        for form in _forms(page.text):
            for candidate in form.buttons:
                target = candidate.action or form.action
                if button in (candidate.name, candidate.value, target.split("?")[0].rpartition("/")[2]):
                    pressed = [(candidate.name, candidate.value)] if candidate.name else []
                    return await self._go(form.method, urljoin(page.url, target), [*form.fields, *pressed])
        raise StepFailed(f"{page.url} has no button '{button}'")

    async def close(self) -> None:
        await self._http.close()

    async def _go(self, method: str, url: str, fields: Sequence[tuple[str, str]] | None) -> Seen:
        try:
            if method == "POST":
                async with self._http.post(url, data=list(fields or ())) as response:
                    return await _seen(response)
            async with self._http.get(url, params=list(fields) if fields else None) as response:
                return await _seen(response)
        except (ClientError, OSError, ValueError) as error:
            raise StepFailed(f"{url} cannot be opened: {str(error) or type(error).__name__}") from error


async def _seen(response: ClientResponse) -> Seen:
    return Seen(url=str(response.url), status=response.status, text=await response.text())


class _FormReader(HTMLParser):
    """Collects the forms of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(Form(action=given.get("action", ""), method=given.get("method", "get").upper()))
        elif self.forms and tag in ("input", "button"):
            kind = given.get("type", "text" if tag == "input" else "submit")
            name, value = given.get("name", ""), given.get("value", "")
            if kind == "submit":
                self.forms[-1].buttons.append(Button(name, value, given.get("formaction", "")))
            elif tag == "input" and name:
                self.forms[-1].fields.append((name, value))


def _forms(text: str) -> list[Form]:
    reader = _FormReader()
    reader.feed(text)
    return reader.forms
