"""Refusals about merchants' accounts, their orders and the payment of these."""

from core.errors import DomainError, ErrorKind, NotFound, Unavailable


class IntegrationNotFound(NotFound):
    """The merchant has no such account."""

    message = "Payment provider not set up"


class ProviderNotOffered(DomainError):
    """Merchants cannot have accounts at this provider."""

    code = "PAYMENT_ERROR"
    message = "This payment provider is not offered to merchants"


class NoAccount(DomainError):
    """The merchant has not set up a payment provider, so nobody can be sent there."""

    code = "PAYMENT_ERROR"
    message = "Set up a payment provider first"


class KeysUnreadable(Unavailable):
    """The key that has sealed a merchant's keys is not on the ring: the operator must put it back."""

    code = "PAYMENT_ERROR"
    message = "The payment provider's keys cannot be read now"


class OrderNotFound(NotFound):
    """The merchant has no such order."""

    message = "Order not found"


class OrderExists(DomainError):
    """The merchant has an order with this reference already."""

    kind = ErrorKind.CONFLICT
    code = "ALREADY_EXISTS"
    message = "An order with this external reference exists already"


class OrderPaidAlready(DomainError):
    """There is nothing left to pay."""

    kind = ErrorKind.CONFLICT
    code = "CONFLICT"
    message = "This order is paid already"


class OrderAmountDiffers(DomainError):
    """What was asked to be paid is not what the order costs; the stored amount is what counts."""

    kind = ErrorKind.CONFLICT
    code = "AMOUNT_DIFFERS"
    message = "The order has another amount or currency"


class InvoiceBeingOpened(Unavailable):
    """Somebody else has just asked the provider for this order's invoice, and the answer is not there yet."""

    code = "PAYMENT_ERROR"
    message = "The invoice of this order is being opened, try again in a moment"


class NothingToRefund(DomainError):
    """The order has not been paid, or less is left of it than is to be given back."""

    kind = ErrorKind.CONFLICT
    code = "PAYMENT_ERROR"
    message = "There is less left of this order's payment than is to be refunded"


class RefundUnderWay(DomainError):
    """What became of a refund asked for before is not known yet; asking for another could give back twice."""

    kind = ErrorKind.CONFLICT
    code = "CONFLICT"
    message = "A refund of this order is under way"
