"""What API keys may do on a socket: where they may listen, what they may send, and as whom they are counted."""

from uuid import UUID

from namespaces.names import subject_of
from realtime.presence import MACHINES
from services.identity import ApiKeyRefused, Principal, require_scope
from services.permissions import KeyScope

# Everything on the roots, where all events are heard.
_ALL = KeyScope.EVENTS_READ
_OF_SUBJECT = {"/billing": KeyScope.BILLING_READ, "/provisioning": KeyScope.JOBS_READ}
_MAY_SEND = frozenset(("ping", "sync", "presence", "auth:refresh"))


def require_hearing(principal: Principal, namespace: str) -> None:
    """Raise ScopeRequired for a key that may not hear what is said on a namespace; people hear what their rooms get."""
    if principal.scopes is None or _ALL in principal.scopes:
        return
    require_scope(principal, _OF_SUBJECT.get(subject_of(namespace) or "", _ALL))


def require_saying(principal: Principal, event: str) -> None:
    """Raise ApiKeyRefused for a key that sends what only people may."""
    if principal.key_id is not None and event not in _MAY_SEND:
        raise ApiKeyRefused


def counted_as(principal: Principal) -> UUID:
    """Return as whom a socket stands on the presence board."""
    return MACHINES if principal.key_id is not None else principal.user_id
