"""Follows the realtime events of an ERPMax Orchestrator: each once, in order, across every drop."""

from erpmax_client.client import Handler, OrchestratorClient
from erpmax_client.errors import (
    AccessRevoked,
    ConnectRefused,
    OrchestratorError,
    PositionLost,
    RequestRefused,
    SignInRefused,
    Unreachable,
)
from erpmax_client.events import Event, Position, PositionStore, Reset
from erpmax_client.tokens import SecondFactor, TokenProvider, Tokens

__all__ = [
    "AccessRevoked",
    "ConnectRefused",
    "Event",
    "Handler",
    "OrchestratorClient",
    "OrchestratorError",
    "Position",
    "PositionLost",
    "PositionStore",
    "RequestRefused",
    "Reset",
    "SecondFactor",
    "SignInRefused",
    "TokenProvider",
    "Tokens",
    "Unreachable",
]
