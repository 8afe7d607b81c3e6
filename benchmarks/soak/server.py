"""An MLflow tracking server that can be taken away and brought back."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from cegppo_lab.tracking.connection import UI_ENVIRONMENT
from tests.e2e.lab import environment, wait_for


class Server:
    """``mlflow server`` over ``folder/mlflow.db``, its log in ``folder/log``."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """The tracking URI."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def database(self) -> Path:
        """The file that holds what was logged."""
        return self._folder / "mlflow.db"

    def up(self) -> None:
        """Start it unless it runs, and wait until it answers."""
        if self._process is not None:
            return
        words = ["server", "--backend-store-uri", f"sqlite:///{self.database}", "--workers", "1"]
        words += ["--host", "127.0.0.1", "--port", str(self._port)]
        with open(self._folder / "log", "a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", *words],
                cwd=self._folder,
                env={**environment(), **UI_ENVIRONMENT},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_for(self._answers, timeout=120)

    def down(self) -> None:
        """Kill it with all its processes, whatever it is at."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            with urlopen(f"{self.uri}/health", timeout=2) as answer:
                return answer.status == 200
        except (URLError, OSError):
            return False
