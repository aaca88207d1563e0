"""The wiring of documents: who issues them, and the keys of their links."""

from server.keys import all_secrets, derived_key
from server.settings import Settings
from services.documents import DocumentLinks, DocumentService, Issuer
from services.mail import MailService
from services.notifications import NotificationService
from services.unit_of_work import UnitOfWorkFactory


def build_documents(
    settings: Settings, units: UnitOfWorkFactory, mail: MailService, notifications: NotificationService
) -> DocumentService:
    """Build the service of documents."""
    keys = [derived_key(secret, "document links") for secret in all_secrets(settings)]
    return DocumentService(
        units=units,
        issuer=Issuer(
            name=settings.invoice_issuer_name,
            # One line of the environment holds several of the address.
            address=settings.invoice_issuer_address.replace("\\n", "\n"),
            tax_id=settings.invoice_issuer_tax_id,
            series=settings.invoice_number_prefix,
            tax_rate=settings.invoice_tax_rate,
        ),
        links=DocumentLinks(keys, public_url=settings.public_base),
        mail=mail,
        notifications=notifications,
    )
