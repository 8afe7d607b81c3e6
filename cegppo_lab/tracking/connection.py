"""Reaching MLflow quickly and quietly, or saying in one line why it cannot be reached."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
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
_NO_MIRROR = (
    "no mirror at {uri}: {reason}; the run store is whole; once MLflow answers, type: "
    "python -m cegppo_lab sync"
)
_NOT_READ = (
    "cannot read MLflow at {uri}: {reason}; name another with --mlflow URI, or fill this one in "
    "from a run store: python -m cegppo_lab sync"
)
_NO_PROGRESS_BARS = {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
_NO_TELEMETRY = {"MLFLOW_DISABLE_TELEMETRY": "true"}  # read once, when mlflow is imported

UI_ENVIRONMENT = {**_NO_TELEMETRY, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
"""Variables for the process of ``ui_command``: no telemetry, no job workers (seven processes that a
viewer does not need)."""


@contextmanager
def connect(uri: str, *, failure: str = _NO_MIRROR, make: bool = True) -> Iterator[MlflowClient]:
    """A client of the MLflow at ``uri`` that has shown it can be reached.

    While open, MLflow's http time-outs are ``TIMEOUT_S`` without retries (unless the user's
    environment sets them) and its loggers stay silent below warnings; both are put back after.
    With ``make``, a database without MLflow's tables gets them; else it must have them all.

    Raises ``LabError`` when the URI is malformed, unreachable or answers with errors: ``failure``
    with its ``{uri}`` and ``{reason}`` filled in.
    """
    scheme = check_uri(uri)
    with _environment(_NO_TELEMETRY):
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    settings = _NO_PROGRESS_BARS | (_HTTP_SETTINGS if scheme in SERVERS else {})
    try:
        with _environment(settings), _quiet("mlflow", "alembic"):
            if scheme in DATABASES:
                _probe_database(uri, DATABASES[scheme], make)
            yield MlflowClient(uri)
    except (MlflowException, SQLAlchemyError, RequestException, ImportError, OSError) as error:
        raise LabError(failure.format(uri=redact(uri), reason=reason(error))) from error


def connect_to_read(uri: str) -> AbstractContextManager[MlflowClient]:
    """Like ``connect``, for runs that others may have logged: makes and upgrades nothing.

    Raises ``LabError`` also for a missing database and for one of another MLflow version.
    """
    return connect(uri, failure=_NOT_READ, make=False)


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


def reason(error: BaseException) -> str:
    """One line on why: the operating system's own word for it, where one lies underneath."""
    told, cause = error, error
    while cause := cause.__cause__ or cause.__context__:
        if isinstance(cause, OSError):
            told = cause
    return (str(told).strip() or type(told).__name__).splitlines()[0][:300]


def _probe_database(uri: str, default_port: int, make: bool) -> None:
    """Raise at once where MLflow would retry for minutes: no server, no driver, no permission."""
    import sqlalchemy

    url = sqlalchemy.make_url(uri)
    if url.host:
        socket.create_connection((url.host, url.port or default_port), TIMEOUT_S).close()
    elif url.database and make:
        Path(url.database).absolute().parent.mkdir(parents=True, exist_ok=True)
    elif not (url.database and Path(url.database).is_file()):
        raise FileNotFoundError("there is no such file")  # to connect would make one
    engine = sqlalchemy.create_engine(url)
    try:
        found = set(sqlalchemy.inspect(engine).get_table_names())
    finally:
        engine.dispose()
    if not make:
        _check_tables(uri, found)


def _check_tables(uri: str, found: set[str]) -> None:
    """``LabError`` for a database that MLflow would change in order to open it."""
    import mlflow.store.db.utils  # noqa: F401 (imports every module with tables)
    from mlflow.store.db.base_sql_model import Base

    if "experiments" not in found:
        raise LabError(f"{redact(uri)} is no MLflow database: it has no table of experiments")
    if not found.issuperset(Base.metadata.tables):
        raise LabError(
            f"{redact(uri)} was made by an older MLflow; keep a copy, then type: "
            f"mlflow db upgrade {redact(uri)}"
        )


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
