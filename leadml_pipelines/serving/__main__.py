"""`python -m leadml_pipelines.serving`: the HTTP app under uvicorn, by the settings."""

from __future__ import annotations

import logging
import sys

import structlog
import uvicorn

from leadml_pipelines.serving.app import create_app
from leadml_pipelines.serving.security import UnsafeAddressError, require_safe_address
from leadml_pipelines.settings import MissingSettingError, Settings


def main() -> int:
    """Serve until SIGINT or SIGTERM; 2 if the settings do not allow it."""
    try:
        settings = Settings()
        require_safe_address(settings)
        app = create_app(settings)
    except (MissingSettingError, UnsafeAddressError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    _configure_log(settings.log_level)
    uvicorn.run(
        app,
        host=settings.http_host,
        port=settings.http_port,
        log_level=settings.log_level,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=10,
    )
    return 0


def _configure_log(level: str) -> None:
    """One JSON object per line on standard error."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


if __name__ == "__main__":
    raise SystemExit(main())
