"""How the service's logs look: lines of key=value, or of JSON, on stderr.

Owns their form, that no row of the database gets into them, and that nobody's work fails because a line can't be
written. What is worth a line, those say who write it; none of them writes a memo, a salt, a token, a passphrase, a seed
or a DSN.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback
from collections.abc import Sequence
from typing import Final, Literal, TextIO, cast

import asyncpg
import structlog
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

LogFormat = Literal["logfmt", "json"]

_RENDERERS: Final[dict[LogFormat, Processor]] = {
    "logfmt": structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
    "json": structlog.processors.JSONRenderer(),
}


class StandardError:
    """The stderr of the moment, as a stream that never fails.

    A line that can't be written is lost: the disk below a log may be full, or whoever read the pipe may be gone, and
    neither may stop a payment or a delivery. What counts stands in the database; `/metrics` tells how the service is.
    """

    def write(self, text: str) -> int:
        """Write what can be written; returns the length of the text either way."""
        # ValueError: the stream is closed. AttributeError: a process without one has None there.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        """Hand on what was written, if that goes."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()


def configure_logs(form: LogFormat = "logfmt", *, worker: int | None = None) -> None:
    """Send all logs, also those of libraries, to stderr, so that stdout says only `listening on`.

    `worker` is the number of this process among several, told in each line.
    """

    def tell_worker(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
        return event if worker is None else {**event, "worker": worker}

    # All that a logger asks of a stream is to write and to flush.
    stderr = cast(TextIO, StandardError())
    shared: Sequence[Processor] = (
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        tell_worker,
        structlog.processors.ExceptionRenderer(render_exception),
    )
    structlog.configure(
        processors=[*shared, _RENDERERS[form]],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stderr)
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
