"""Merchants' keys: sealed for the row that they lie in, and sealed anew when the key of the house is replaced."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func, select

from core import json
from core.sealing import KeyRing, SealBroken, Sealed
from models.merchants import PaymentIntegration
from services.merchants.errors import KeysUnreadable
from services.unit_of_work import PlatformScope, UnitOfWorkFactory

_BATCH = 50
_SCOPE = PlatformScope("the key of the house seals the keys of every merchant")


class Vault:
    """Seals and opens. What was sealed for one merchant, provider and row opens nowhere else in the database."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    @property
    def key_id(self) -> str:
        """The name of the key that seals now."""
        return self._ring.newest

    def lock(self, integration: PaymentIntegration, keys: Mapping[str, str]) -> None:
        """Put a merchant's keys into its row, whose ids and provider must be set."""
        sealed = self._ring.seal(json.dumps_text(dict(keys)), subject=_subject(integration))
        integration.sealed, integration.key_id = sealed.content, sealed.key_id

    def open(self, integration: PaymentIntegration) -> dict[str, str]:
        """Return a merchant's keys.

        Raises:
            KeysUnreadable: the key that has sealed them is not on the ring, or the row was tampered with.
        """
        sealed = Sealed(integration.key_id, integration.sealed)
        try:
            keys: dict[str, str] = json.loads(self._ring.open(sealed, subject=_subject(integration)))
        except SealBroken as broken:
            raise KeysUnreadable(retry_after_s=60) from broken
        return keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotated:
    """How many rows were sealed anew, and how many could not be opened."""

    renewed: int
    unreadable: int


class Rotation:
    """Brings every row under the newest key while others go on reading and writing.

    Each batch is a transaction of its own and takes what does not bear the newest key's name, so that a rotation that
    was interrupted goes on where it was. Rows that are being changed are waited for.
    """

    def __init__(self, units: UnitOfWorkFactory, vault: Vault) -> None:
        self._units = units
        self._vault = vault

    async def run(self) -> Rotated:
        """Seal everything anew that an older key has sealed."""
        renewed, last = 0, UUID(int=0)
        while True:
            async with self._units(_SCOPE) as uow:
                rows = (
                    await uow.session.scalars(
                        select(PaymentIntegration)
                        .where(PaymentIntegration.key_id != self._vault.key_id, PaymentIntegration.id > last)
                        .order_by(PaymentIntegration.id)
                        .limit(_BATCH)
                        .with_for_update()
                    )
                ).all()
                done = [row.id for row in rows if self._renew(row)]
                if done:
                    uow.audit(
                        "payment_keys.rotated",
                        actor_id=None,
                        tenant_id=None,
                        subject=("sealing_key", self._vault.key_id),
                        details={"rows": len(done)},
                    )
            renewed += len(done)
            if not rows:
                return Rotated(renewed=renewed, unreadable=await self._left())
            last = rows[-1].id

    def _renew(self, row: PaymentIntegration) -> bool:
        # Meanwhile somebody may have stored new keys, which the newest key has sealed.
        if row.key_id == self._vault.key_id:
            return False
        try:
            self._vault.lock(row, self._vault.open(row))
        except KeysUnreadable:
            return False
        return True

    async def _left(self) -> int:
        async with self._units(_SCOPE) as uow:
            return (
                await uow.session.scalar(
                    select(func.count())
                    .select_from(PaymentIntegration)
                    .where(PaymentIntegration.key_id != self._vault.key_id)
                )
            ) or 0


def _subject(integration: PaymentIntegration) -> str:
    return f"payment integration {integration.id} of tenant {integration.tenant_id} at {integration.provider}"
