"""Reports over a billing that has a clock and a database of its own."""

from tests.services.billing.conftest import books, ledger, shop, till

__all__ = ["books", "ledger", "shop", "till"]
