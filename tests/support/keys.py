"""API keys as a company's people make them, and machines that come with one."""

from dataclasses import dataclass, replace
from typing import Any

from services.permissions import KeyScope
from tests.support.people import Person


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeKey:
    """A key that an owner has made; `machine` sends requests with it as a person does with a token."""

    id: str
    text: str
    view: dict[str, Any]
    owner: Person

    @property
    def machine(self) -> Person:
        return replace(self.owner, token=self.text)

    @property
    def path(self) -> str:
        return f"{keys_of(self.owner)}/{self.id}"

    async def revoke(self) -> None:
        status, answer = await self.owner.delete(self.path)
        assert status == 200, answer


def keys_of(owner: Person) -> str:
    """Return the path of a company's keys."""
    return f"tenants/{owner.tenant_id}/api-keys"


async def make_key(owner: Person, *scopes: KeyScope, **more: Any) -> MadeKey:
    """Have an owner make a key, by default for the jobs."""
    body = {"name": "1C", "scopes": list(scopes or (KeyScope.JOBS_READ, KeyScope.JOBS_WRITE)), **more}
    status, answer = await owner.post(keys_of(owner), body)
    assert status == 201, answer
    view = answer["data"]
    return MadeKey(id=view["id"], text=view["key"], view=view, owner=owner)
