"""Security notices: a letter, and a notification, about what has happened to somebody's own account."""

from uuid import UUID

from sqlalchemy import select

from core.i18n import TEXTS
from models.notifications import NotificationType
from models.users import User
from services.mail import MailService
from services.notifications import NotificationService
from services.unit_of_work import UnitOfWork


class SecurityNotices:
    """Tells people in their own language, in the transaction of what it tells of."""

    def __init__(self, *, mail: MailService, notifications: NotificationService) -> None:
        self._mail = mail
        self._notifications = notifications

    async def warn(
        self,
        uow: UnitOfWork,
        user_id: UUID,
        notice: str,
        *,
        tenant_id: UUID | None,
        recipient: str | None = None,
        **values: object,
    ) -> None:
        """Send the letter `letters.<notice>`, and the notification `security.<notice>` if there is a tenant to show it.

        The letter goes to the user's address, or to `recipient` if that was theirs until now. Whoever has no address
        gets no letter. Both texts may use `values`, and the letter the user's name and address besides. Needs a
        PlatformScope, or the scope of `tenant_id`.
        """
        user = (await uow.session.scalars(select(User).where(User.id == user_id))).one()
        address = recipient or user.email
        if address is not None:
            self._mail.enqueue_letter(
                uow,
                notice,
                recipient=address,
                locale=user.locale,
                full_name=user.full_name,
                email=address,
                **values,
            )
        if tenant_id is not None:
            await self._notifications.notify(
                uow,
                tenant_id=tenant_id,
                user_ids=[user_id],
                type=NotificationType.WARNING,
                title=TEXTS.text(f"security.{notice}.title", user.locale, **values),
                message=TEXTS.text(f"security.{notice}.message", user.locale, **values),
                data={"notice": notice},
            )
