"""A PostgreSQL server for one test: in a temporary folder, on a Unix socket, gone afterwards."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

REQUIRED = "S4ECA_REQUIRE_POSTGRES"
"""Set by .ci/run, which installs PostgreSQL: a test that finds none must then fail and not be skipped."""


def binaries() -> Path | None:
    """Returns the folder of initdb and pg_ctl, which Debian keeps out of PATH."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if all((folder / name).is_file() for name in ("initdb", "pg_ctl"))), None)


def need_binaries() -> Path:
    """Returns that folder; where there is none the test is skipped, or fails where .ci/run has promised one."""
    folder = binaries()
    if folder is None and not os.environ.get(REQUIRED):
        pytest.skip("initdb and pg_ctl are neither in PATH nor in /usr/lib/postgresql; apt-get install postgresql")
    assert folder is not None, f"{REQUIRED} is set, and there are no initdb and pg_ctl"
    return folder


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Starts a server and yields its socket's folder.

    Anybody who can reach the socket may come in as postgres; `locked` needs a password.
    """
    # initdb refuses root, and root's own temporary folders are closed to others; a socket's path has 107 characters
    as_user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
    place = Path(tempfile.mkdtemp(prefix="s4eca_pg_", dir="/tmp"))
    if as_user:
        shutil.chown(place, "postgres", "postgres")

    def run(program: str, *arguments: str) -> None:
        done = subprocess.run(
            [folder / program, *arguments], cwd=place, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=120, check=False, **as_user,
        )  # fmt: skip
        log = place / "log"
        assert done.returncode == 0, done.stdout + (log.read_text() if log.is_file() else "")

    try:
        run("initdb", "-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        access = place / "data" / "pg_hba.conf"
        access.write_text("local all locked scram-sha-256\n" + access.read_text())
        options = f"-k {place} -c listen_addresses='' -c fsync=off"
        # the server's output must not be a pipe of ours, which would stay open as long as the server
        subprocess.run(
            [folder / "pg_ctl", "-D", "data", "-o", options, "-l", "log", "-w", "-t", "60", "start"],
            cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120, check=True, **as_user,
        )  # fmt: skip
        try:
            yield str(place)
        finally:
            run("pg_ctl", "-D", "data", "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(place, ignore_errors=True)
