"""A server that ends with the process that started it, however that ends: Ctrl-C, SIGTERM, SIGKILL, a closed terminal.

The server leads a process group of its own. A shell beside it waits on a pipe that the system closes with this process,
then ends the whole group: MLflow's front process does not end its workers when it is killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

GRACE_SECONDS = 5
_GUARD = f'cat >/dev/null; kill -TERM "-$1" 2>/dev/null && sleep {GRACE_SECONDS} && kill -KILL "-$1" 2>/dev/null'


def serve(command: Sequence[str], *, environment: Mapping[str, str]) -> int:
    """Runs a server until it ends or this process does; its exit status, 0 after Ctrl-C."""
    server = subprocess.Popen(command, env=dict(environment), start_new_session=True)
    guard = subprocess.Popen(["sh", "-c", _GUARD, "sh", str(server.pid)], stdin=subprocess.PIPE, start_new_session=True)
    try:
        status = server.wait()
        guard.kill()  # nothing is left to end, and the group's number may become another's
        return status
    except KeyboardInterrupt:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()
        return 0
    finally:
        guard.stdin.close()
        guard.wait()
