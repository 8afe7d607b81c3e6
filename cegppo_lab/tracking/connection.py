"""Reaching MLflow quickly and quietly, or saying in one line why it cannot be reached."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cegppo_lab.errors import LabError, unknown

if TYPE_CHECKING:  # importing mlflow takes seconds: at run time, only inside functions
    from mlflow import MlflowClient

DEFAULT_URI = "sqlite:///mlflow.db"
"""MLflow's own default, so that a bare ``mlflow ui`` in the same folder shows the runs."""

TIMEOUT_S = 8
SERVERS = ("http", "https")
DATABASES = {"sqlite": 0, "postgresql": 5432, "mysql": 3306, "mssql": 1433}  # scheme: port

# A request that timed out may have been carried out: repeated, it could make a second run. The
# next pass asks what is there first. (MLflow's defaults are 7 retries of 120 s.)
_HTTP_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(TIMEOUT_S),
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_NO_TELEMETRY = {"MLFLOW_DISABLE_TELEMETRY": "true"}  # read once, when mlflow is imported

UI_ENVIRONMENT = {**_NO_TELEMETRY, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
"""Variables for the process of ``ui_command``: no telemetry, no job workers (seven processes that a
viewer does not need)."""


@contextmanager
def connect(uri: str) -> Iterator[MlflowClient]:
    """A client of the MLflow at ``uri`` that has shown it can be reached.

    While open, MLflow's http time-outs are ``TIMEOUT_S`` without retries (unless the user's
    environment sets them) and its loggers stay silent below warnings; both are put back after.

    Raises ``LabError``, naming the URI, when it is malformed, unreachable or answers with errors.
    """
    scheme = check_uri(uri)
    with _environment(_NO_TELEMETRY):
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    settings = _HTTP_SETTINGS if scheme in SERVERS else {}
    try:
        with _environment(settings), _quiet("mlflow", "alembic"):
            if scheme in DATABASES:
                _probe_database(uri, DATABASES[scheme])
            yield MlflowClient(uri)
    except (MlflowException, SQLAlchemyError, RequestException, ImportError, OSError) as error:
        raise LabError(
            f"no mirror at {redact(uri)}: {_reason(error)}; the run store is whole; once MLflow "
            "answers, type: python -m cegppo_lab sync"
        ) from error


def check_uri(uri: str) -> str:
    """The scheme of a tracking URI; ``LabError`` for one that MLflow mirrors cannot live at.

    Folders (``./mlruns``) are refused, as MLflow itself does: they cannot tell a value that is
    written twice from two values.
    """
    scheme = urlsplit(uri).scheme.split("+")[0]  # postgresql+psycopg names a driver
    if scheme not in DATABASES and scheme not in SERVERS:
        raise unknown(
            f"scheme in the tracking URI {redact(uri)!r},", scheme, (*DATABASES, *SERVERS)
        )
    return scheme


def redact(uri: str) -> str:
    """``uri`` without its password, fit to be printed."""
    password = urlsplit(uri).password
    return uri.replace(f":{password}@", ":***@") if password else uri


def database_file(uri: str) -> Path | None:
    """The absolute path of an SQLite tracking database; None for any other URI."""
    return Path(uri.removeprefix("sqlite:///")).absolute() if uri.startswith("sqlite:") else None


def ui_command(uri: str, host: str = "127.0.0.1", port: int = 5000) -> list[str]:
    """The command that serves the MLflow UI of the database at ``uri`` on ``http://host:port``.

    Raises ``LabError`` for a server's URI (that has a UI already) and for a missing database.
    """
    if check_uri(uri) in SERVERS:
        raise LabError(f"{redact(uri)} is an MLflow server already: open it in a browser")
    file = database_file(uri)
    if file is not None and not file.exists():
        raise LabError(f"no MLflow database at {file}; type: python -m cegppo_lab sync")
    server = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    return [*server, "--host", host, "--port", str(port), "--workers", "1"]


def _reason(error: BaseException) -> str:
    """One line on why: the operating system's own word for it, where one lies underneath."""
    told, cause = error, error
    while cause := cause.__cause__ or cause.__context__:
        if isinstance(cause, OSError):
            told = cause
    return (str(told).strip() or type(told).__name__).splitlines()[0][:300]


def _probe_database(uri: str, default_port: int) -> None:
    """Raise at once where MLflow would retry for minutes: no server, no driver, no permission."""
    import sqlalchemy

    url = sqlalchemy.make_url(uri)
    if url.host:
        socket.create_connection((url.host, url.port or default_port), TIMEOUT_S).close()
    elif url.database:
        Path(url.database).absolute().parent.mkdir(parents=True, exist_ok=True)
    engine = sqlalchemy.create_engine(url)
    try:
        sqlalchemy.inspect(engine)
    finally:
        engine.dispose()


@contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    """Set the variables that are not set already, for as long as the block runs."""
    absent = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(absent)
    try:
        yield
    finally:
        for name in absent:
            os.environ.pop(name, None)


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Keep these loggers and those below them silent, except for errors."""
    before = [(logging.getLogger(name), logging.getLogger(name).level) for name in names]
    for logger, _ in before:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in before:
            logger.setLevel(level)
