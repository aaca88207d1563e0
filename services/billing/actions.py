"""What can be done with a subscription and with a purchase in each state: the tables behind `available_actions`."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from models.billing import CheckoutSession, CheckoutState, Subscription, SubscriptionStatus


class Action(StrEnum):
    """What somebody may do next.

    * `checkout`: begin a purchase, `POST /billing/checkout`.
    * `cancel`: let the subscription end with its period; `cancel_now`: end it. Both are `POST /billing/cancel`.
    * `reinstate`: take the cancellation back, `POST /billing/reinstate`.
    * `change_plan`: `POST /billing/change-plan`; `withdraw_change`: take back a change that has yet to come.
    * `pay`: go on at the purchase's `url`.
    """

    CHECKOUT = "checkout"
    CANCEL = "cancel"
    CANCEL_NOW = "cancel_now"
    REINSTATE = "reinstate"
    CHANGE_PLAN = "change_plan"
    WITHDRAW_CHANGE = "withdraw_change"
    PAY = "pay"


_OF_SUBSCRIPTION: Final[Mapping[SubscriptionStatus, tuple[Action, ...]]] = {
    SubscriptionStatus.TRIAL: (
        Action.CHECKOUT,
        Action.CHANGE_PLAN,
        Action.CANCEL,
        Action.REINSTATE,
        Action.CANCEL_NOW,
    ),
    SubscriptionStatus.ACTIVE: (
        Action.CHECKOUT,
        Action.CHANGE_PLAN,
        Action.WITHDRAW_CHANGE,
        Action.CANCEL,
        Action.REINSTATE,
        Action.CANCEL_NOW,
    ),
    SubscriptionStatus.PAST_DUE: (Action.CHECKOUT, Action.CANCEL, Action.REINSTATE, Action.CANCEL_NOW),
    SubscriptionStatus.CANCELLED: (Action.CHECKOUT,),
    SubscriptionStatus.EXPIRED: (Action.CHECKOUT,),
}

_OF_CHECKOUT: Final[Mapping[CheckoutState, tuple[Action, ...]]] = {
    CheckoutState.PENDING: (Action.PAY, Action.CHECKOUT),
    CheckoutState.APPROVED: (),
    CheckoutState.PROCESSING: (),
    CheckoutState.PAID: (),
    CheckoutState.UNDERPAID: (Action.CHECKOUT,),
    CheckoutState.EXPIRED: (Action.CHECKOUT,),
    CheckoutState.FAILED: (Action.CHECKOUT,),
    CheckoutState.CANCELLED: (Action.CHECKOUT,),
}


def actions_of_subscription(subscription: Subscription) -> list[Action]:
    """Return what can be done with a subscription as it stands; who may is decided where it is done."""
    actions = _OF_SUBSCRIPTION[subscription.status]
    # What is to end is not changed any more before somebody reinstates it.
    done = {Action.CANCEL, Action.CHANGE_PLAN} if subscription.cancel_at_period_end else {Action.REINSTATE}
    if subscription.next_plan_id is None:
        done.add(Action.WITHDRAW_CHANGE)
    return [action for action in actions if action not in done]


def actions_of_checkout(checkout: CheckoutSession) -> list[Action]:
    """Return what can be done with a purchase as it stands."""
    unknown = {Action.PAY} if checkout.url is None else set()
    return [action for action in _OF_CHECKOUT[checkout.state] if action not in unknown]
