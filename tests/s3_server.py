"""A real S3 protocol server on loopback (moto), and a TCP proxy before it that can cut connections.

moto needs an environment of its own (see Makefile, target test-infra); without it the tests are skipped with the reason.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.infra.clouds import tool_python

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def s3_server(folder: Path, **environment: str) -> Iterator[str]:
    """The server's URL. Its port is the system's choice and is read from the server's own words."""
    python, log = tool_python("moto"), folder / "s3-server.log"
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "PYTHON"))}
    with log.open("w") as words:
        command = [python, "-u", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        process = subprocess.Popen(command, stdout=words, stderr=words, env={**kept, **environment})
    try:
        deadline = time.monotonic() + 60
        while "Running on http://127.0.0.1:" not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield "http://" + log.read_text().partition("Running on http://")[2].split()[0]
    finally:
        process.terminate()
        process.wait(timeout=20)


class CuttingProxy:
    """Forwards TCP to `url`. While `cuts` is above 0, a connection is cut after `after_bytes` bytes towards the client or the server."""

    def __init__(self, url: str) -> None:
        target = urlsplit(url)
        self._target = (target.hostname, target.port)
        self.cuts, self.after_bytes, self.cut_so_far = 0, 0, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._target) as server:
            passed = 0
            while True:
                readable, _, _ = select.select([client, server], [], [], 60)
                if not readable:
                    return
                for source in readable:
                    try:
                        block = source.recv(65_536)
                        if not block:
                            return
                        passed += len(block)
                        if self.cuts > 0 and passed > self.after_bytes:
                            self.cuts, self.cut_so_far = self.cuts - 1, self.cut_so_far + 1
                            return
                        (server if source is client else client).sendall(block)
                    except OSError:
                        return
