"""How the service's logs look: lines of key=value, or of JSON, on stderr.

Owns their form, and that no row of the database gets into them. What is worth a line, those say who write it; none of
them writes a memo, a salt, a token, a passphrase, a seed or a DSN.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Sequence
from typing import Final, Literal

import asyncpg
import structlog
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

LogFormat = Literal["logfmt", "json"]

_RENDERERS: Final[dict[LogFormat, Processor]] = {
    "logfmt": structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
    "json": structlog.processors.JSONRenderer(),
}


def configure_logs(form: LogFormat = "logfmt", *, worker: int | None = None) -> None:
    """Send all logs, also those of libraries, to stderr, so that stdout says only `listening on`.

    `worker` is the number of this process among several, told in each line.
    """

    def tell_worker(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
        return event if worker is None else {**event, "worker": worker}

    shared: Sequence[Processor] = (
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        tell_worker,
        structlog.processors.ExceptionRenderer(render_exception),
    )
    structlog.configure(
        processors=[*shared, _RENDERERS[form]],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _RENDERERS[form]],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def render_exception(exc_info: ExcInfo) -> str:
    """A traceback without what PostgreSQL tells of the row at fault: its detail quotes the row, memos too."""
    kind, error, trace = exc_info
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, asyncpg.PostgresError):
            # What went wrong is in the message and the SQLSTATE; nobody reads the detail after the log.
            seen.detail = None
        seen = seen.__cause__ or seen.__context__
    return "".join(traceback.format_exception(kind, error, trace)).rstrip("\n")
