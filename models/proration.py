"""What a change of plan within a paid period costs: exact shares of time, rounded once (providers.md 1.1).

The steps of one period are added up exactly and only their sum is rounded, so that however often somebody changes the
plan, what they pay for the period differs from its time-weighted price by less than one minor unit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from core.money import exponent


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A change that has been paid: from one price of a whole period to another, at a moment, for `paid`."""

    at: datetime
    before: Decimal
    after: Decimal
    paid: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class PaidPeriod:
    """The period in which something changes, and what has changed in it before."""

    start: datetime
    end: datetime
    currency: str
    steps: Sequence[Step] = ()

    def left(self, at: datetime) -> Fraction:
        """Return the share of the period that is left at a moment: 1 at its start, 0 from its end on."""
        length = (self.end - self.start) // timedelta(microseconds=1)
        if length <= 0:
            return Fraction(0)
        rest = Fraction((self.end - at) // timedelta(microseconds=1), length)
        return min(max(rest, Fraction(0)), Fraction(1))

    def due_for_remainder(self, *, before: Decimal, after: Decimal, at: datetime) -> Decimal:
        """Return what the rest of the period costs more at the price `after` than at `before`."""
        return self._rounded(self._owed() + _difference(before, after) * self.left(at))

    def due_for_new_period(self, *, before: Decimal, after: Decimal, at: datetime) -> Decimal:
        """Return what a whole new period for `after` costs when the rest of this one is given back; may be negative."""
        return self._rounded(self._owed() + Fraction(after) - Fraction(before) * self.left(at))

    def _owed(self) -> Fraction:
        """Return what the steps so far come to, exactly, less what was paid for them: less than a minor unit."""
        return sum(
            (_difference(step.before, step.after) * self.left(step.at) - Fraction(step.paid) for step in self.steps),
            Fraction(0),
        )

    def _rounded(self, exact: Fraction) -> Decimal:
        """Round to the currency's minor unit, a half away from zero (contract.md 4.6)."""
        scale = 10 ** exponent(self.currency)
        units, rest = divmod(abs(exact) * scale, 1)
        rounded = Decimal(units + (1 if rest >= Fraction(1, 2) else 0)).scaleb(-exponent(self.currency))
        return rounded if exact >= 0 else -rounded


def _difference(before: Decimal, after: Decimal) -> Fraction:
    return Fraction(after) - Fraction(before)
