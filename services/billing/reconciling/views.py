"""What operators see of sweeps."""

from datetime import datetime
from typing import Self
from uuid import UUID

from models.reconciliations import Reconciliation, ReconciliationStage, ReconciliationState
from services.billing.views import View


class ReconciliationView(View):
    """A sweep of everything that a provider holds.

    `checked` counts what was looked at so far, `found` what nobody had told us of, and `changed` what of that has made
    a difference by now. `stage` is what is being compared; `last_error` why it had to wait.
    """

    id: UUID
    provider: str
    state: ReconciliationState
    stage: ReconciliationStage
    nightly: bool
    requested_by: UUID | None
    started_at: datetime
    finished_at: datetime | None
    checked: int
    found: int
    changed: int
    last_error: str | None

    @classmethod
    def of(cls, row: Reconciliation) -> Self:
        return cls(
            id=row.id,
            provider=row.provider,
            state=row.state,
            stage=row.stage,
            nightly=row.nightly_on is not None,
            requested_by=row.requested_by,
            started_at=row.started_at,
            finished_at=row.finished_at,
            checked=row.checked,
            found=row.found,
            changed=row.changed,
            last_error=row.last_error,
        )
