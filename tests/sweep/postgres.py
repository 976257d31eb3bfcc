"""A PostgreSQL server of Debian's package for one test: own folder, loopback, a free port, a password."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

USER, PASSWORD = "ada", "s3cret-of-ada"


def program(name: str) -> str:
    """Debian keeps them off the path."""
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(installed[-1]) if installed else shutil.which(name) or pytest.skip("PostgreSQL is not installed")


class Server:
    """Started and stopped as often as a test needs; its data stay."""

    def __init__(self, folder: Path, user: str | None):
        self.folder, self.user = folder, user  # the server refuses to run as root
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        password = folder / "password"
        password.write_text(PASSWORD)
        self._run("initdb", "--username", USER, "--auth", "scram-sha-256", "--pwfile", str(password), "--no-sync")

    @property
    def url(self) -> str:
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder} -c fsync=off"
        self._run("pg_ctl", "start", "--wait", "--options", options, "--log", str(self.folder / "log"))

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "--wait", "--mode", "immediate")

    def _run(self, name: str, *arguments: str) -> None:
        command = [program(name), "--pgdata", str(self.folder / "data"), *arguments]
        subprocess.run(command, user=self.user, check=True, cwd=self.folder, stdout=subprocess.DEVNULL, timeout=120)


@contextlib.contextmanager
def postgres():
    folder = Path(tempfile.mkdtemp(prefix="detoxlens-postgres-"))
    user = None
    if os.geteuid() == 0:
        user = "nobody"
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
    server = None
    try:
        server = Server(folder, user)
        server.start()
        yield server
    finally:
        if server is not None and (folder / "data/postmaster.pid").exists():
            server.stop()
        shutil.rmtree(folder)
