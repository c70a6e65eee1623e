"""Running a server that refuses to be root, when we are root.

PostgreSQL must not run as root, and root's folders are often closed to everybody else: in a
container both the home and the virtual environment tend to lie under `/root`. So as root the
server runs as a system user of its own, and what that user can't reach is kept under
`/var/lib/leadml`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
import time
from pathlib import Path

from leadml_pipelines.services.errors import ServiceError
from leadml_pipelines.services.records import User

USER = "leadml-postgres"
"""The system user that the database runs as."""

OUTSIDE = Path("/var/lib/leadml")
"""Holds what must be open to that user."""

_WAY_OUT = "run as another user than root, or name a PostgreSQL of your own in LEADML_POSTGRES_URL"
_USERADD_TRIES = 5


def server_user() -> User | None:
    """The user that PostgreSQL must run as; None when the current one will do.

    Raises:
        ServiceError: we are root, the system user does not exist and can't be made.
    """
    if os.geteuid() != 0:
        return None
    user = _system_user()
    if user is None:
        _make_system_user()
        user = _system_user()
    if user is None:
        raise ServiceError(
            f"useradd made the system user {USER}, but it can't be found; {_WAY_OUT}"
        )
    return user


def is_open_to(user: User, folder: Path) -> bool:
    """Whether this user can enter a folder; asked of the kernel rather than worked out."""
    return _succeeds_as(user, ["/bin/sh", "-c", 'cd -- "$1"', "sh", str(folder)])


def can_run(user: User, program: Path) -> bool:
    """Whether this user can execute a program together with its libraries."""
    return _succeeds_as(user, [str(program), "--version"])


def give(path: Path, user: User) -> None:
    """Make a folder and everything in it belong to this user."""
    for folder, names, files in os.walk(path):
        for name in (".", *names, *files):
            os.chown(Path(folder, name), user.uid, user.gid, follow_symlinks=False)


def outside_folder(home: Path) -> Path:
    """Make and return a folder outside of the home that every user can pass through.

    Its name is a digest of the home's path. The folder of a former home of the same path is left
    alone, for nobody knows whether that home was deleted or moved; a number is added then.

    Raises:
        ServiceError: it can't be made.
    """
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    number = 1
    while True:
        folder = OUTSIDE / (digest if number == 1 else f"{digest}-{number}")
        try:
            make_passable(OUTSIDE)
            folder.mkdir(mode=0o711)
        except FileExistsError:
            number += 1
            continue
        except OSError as error:
            raise ServiceError(f"{folder} can't be made: {error}; {_WAY_OUT}") from error
        folder.chmod(0o711)
        (folder / "home").write_text(f"{home}\n", encoding="utf-8")
        return folder


def make_passable(folder: Path) -> None:
    """Make a folder, whatever the umask, that everybody may pass through but not list."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o711)


def copy_outside(name: str, parts: dict[str, Path]) -> Path:
    """Copy folders to where every user can read and execute them, once.

    Args:
        name: Names the copy; holds the version of what is copied.
        parts: Source folder by its relative path in the copy.

    Returns:
        The folder of the copy.
    """
    target = OUTSIDE / name
    if target.is_dir():
        return target
    try:
        make_passable(OUTSIDE)
        temporary = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=OUTSIDE))
        try:
            for relative, source in parts.items():
                shutil.copytree(source, temporary / relative, symlinks=True)
            _open_for_reading(temporary)
            # Fails when another command was quicker; its copy is as good.
            if not target.is_dir():
                temporary.rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        if not target.is_dir():
            raise ServiceError(f"{target} can't be made: {error}; {_WAY_OUT}") from error
    return target


def _open_for_reading(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if path.is_symlink():
            continue
        mode = path.stat().st_mode
        executable = stat.S_ISDIR(mode) or mode & stat.S_IXUSR
        path.chmod(0o755 if executable else 0o644)


def _succeeds_as(user: User, command: list[str]) -> bool:
    try:
        done = subprocess.run(
            command,
            user=user.uid,
            group=user.gid,
            extra_groups=[],
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=60,
        )
    except PermissionError:
        return False
    return done.returncode == 0


def _system_user() -> User | None:
    import pwd

    try:
        entry = pwd.getpwnam(USER)
    except KeyError:
        return None
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _make_system_user() -> None:
    useradd = shutil.which("useradd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if useradd is None:
        raise ServiceError(
            f"PostgreSQL refuses to run as root, there is no user {USER}, and useradd is not "
            f"installed to make it; make that system user, {_WAY_OUT}"
        )
    command = [
        useradd, "--system", "--user-group", "--no-create-home",
        "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", USER,
    ]  # fmt: skip
    for attempt in range(_USERADD_TRIES):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        # Another command may be making it in this very moment, or hold the lock of the user list.
        if done.returncode == 0 or _system_user() is not None:
            return
        time.sleep(0.2 * (attempt + 1))
    raise ServiceError(
        f"PostgreSQL refuses to run as root, and its user {USER} can't be made: "
        f"{done.stderr.strip()}; {_WAY_OUT}"
    )
