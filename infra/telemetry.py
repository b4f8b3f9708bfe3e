"""Logs of all roles: one line an event, key=value (or JSON), with the role's name; secrets never reach it."""

import logging
import sys

import structlog

from infra.redaction import hide_secrets


def configure_logging(role: str, log_format: str = "text") -> None:
    """Sends structlog and the standard library's loggers to stderr.

    Args:
        role: bound to each line, e.g. "web".
        log_format: "text" for people, "json" for collectors.
    """
    renderer = structlog.processors.JSONRenderer() if log_format == "json" else structlog.processors.LogfmtRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            hide_secrets,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(role=role)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")


def configure_command_logging() -> None:
    """For a command of the CLI that goes to the stores: warnings and worse, on stderr; stdout is for its answer."""
    structlog.configure(
        processors=[
            _only_warnings,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            hide_secrets,
            structlog.processors.LogfmtRenderer(key_order=["level", "event"]),
        ],
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )


def _only_warnings(_logger: object, method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    if method in {"debug", "info"}:
        raise structlog.DropEvent
    return line
