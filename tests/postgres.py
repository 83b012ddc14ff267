"""A PostgreSQL server of the tests' own, run by an unprivileged user."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
"""Debian's; the newest is last."""


def available() -> bool:
    """Whether there is a server to start."""
    return bool(BINARIES) and (BINARIES[-1] / "initdb").exists()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@contextmanager
def server() -> Iterator[str]:
    """The address of an empty database; the server is stopped and its files are deleted at the end."""
    user = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # a socket's path has room for 107 characters
    os.chown(folder, user.pw_uid, user.pw_gid)
    port, data = free_port(), folder / "data"

    def call(*words: str) -> None:
        who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
        subprocess.run(words, check=True, capture_output=True, cwd=folder, env={"PATH": "/usr/bin:/bin"}, **who)  # type: ignore[call-overload]  # a dict's types

    try:
        call(str(BINARIES[-1] / "initdb"), "-D", str(data), "-U", "trifold", "--auth=trust", "--no-sync")
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        control = str(BINARIES[-1] / "pg_ctl")
        call(control, "-D", str(data), "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield f"postgresql://trifold@127.0.0.1:{port}/postgres"
        finally:
            call(control, "-D", str(data), "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
