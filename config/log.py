"""Logging: structured, to standard error, JSON unless it is a terminal. Foreign libraries are heard from warnings on.

Events name kinds of failures and ids, never what a client or a peer said. What foreign libraries say may quote
addresses, so that only its level and the library are shown; aiosmtpd's own log is switched off.

A process that runs for long calls configure(). A command has mostly nothing to say, and structlog takes a tenth of its
time to import: there it is imported with the first event.
"""

import logging
import sys
from functools import cache
from typing import Any, Final

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}

_level, _style = "warning", "console"  # what a command shows


class Logger:
    """Takes events: a short text that is always the same, and fields."""

    def debug(self, event: str, **fields: object) -> None:
        """For who looks for a mistake of ours."""
        _structured().debug(event, **fields)

    def info(self, event: str, **fields: object) -> None:
        """What is as it should be."""
        _structured().info(event, **fields)

    def warning(self, event: str, **fields: object) -> None:
        """What may need somebody's attention."""
        _structured().warning(event, **fields)

    def error(self, event: str, **fields: object) -> None:
        """What needs somebody's attention."""
        _structured().error(event, **fields)

    def critical(self, event: str, **fields: object) -> None:
        """What needs it now."""
        _structured().critical(event, **fields)


LOG: Final = Logger()


def configure(level: str, style: str) -> None:
    """Set logging up for this process. style: auto, json or console."""
    global _level, _style
    _level, _style = level, style
    quieten()
    _structured.cache_clear()
    _structured()  # now: an event may be about files that can't be opened any more


def quieten() -> None:
    """Let foreign libraries say only that they have something to say."""
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format='{"level": "%(levelname)s", "logger": "%(name)s"}'
    )
    logging.getLogger("mail.log").disabled = True
    logging.getLogger("aiohttp.access").disabled = True


def say_in_each_event(**fields: object) -> None:
    """Fields of every event from now on, in the tasks that are begun from here too."""
    from structlog.contextvars import bind_contextvars

    bind_contextvars(**fields)


@cache
def _structured() -> Any:
    import structlog

    console = _style == "console" or (_style == "auto" and sys.stderr.isatty())
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        if console
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[_level]),
        logger_factory=lambda: structlog.PrintLogger(sys.stderr),
    )
    return structlog.get_logger()
