"""Starts the Neo4j server of `GraphServer.java` where Java, Maven and the artifacts can be had.

The class path is asked of Maven once and kept in the user's cache folder; the artifacts themselves
lie in Maven's own repository. Nothing of Neo4j is kept in this project.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
USER = "neo4j"
DATABASE = "neo4j"

_JAVA = 17
_MAVEN_SECONDS = 180
_START_SECONDS = 90
_STOP_SECONDS = 20

# What the start script of the distribution opens to the page cache and the network code.
_OPENED = ("java.nio", "java.io", "sun.nio.ch", "java.util.concurrent")


class Neo4jUnavailableError(Exception):
    """The server can't be had on this machine; the message says what is missing."""


@contextmanager
def neo4j_server(folder: Path) -> Iterator[dict[str, str]]:
    """Run a server on a free port of the loopback interface.

    Args:
        folder: Where its data and its log go; it exists.

    Yields:
        The `LEADML_NEO4J_...` settings that reach it.

    Raises:
        Neo4jUnavailableError: Java, Maven or an artifact is missing.
        RuntimeError: it was there, and did not start.
    """
    java = _require_java()
    classpath = _classpath()
    folder = folder.resolve()
    # Procedures are looked for in the jars of a folder only, not on the class path.
    procedures = folder / "procedures"
    procedures.mkdir()
    for jar in classpath:
        if "org/neo4j/gds" in jar.as_posix():
            (procedures / jar.name).symlink_to(jar)
    port, password = _free_port(), secrets.token_urlsafe(16)
    log = folder / "server.log"
    command = [
        java,
        "-Xmx1g",
        # Short tests end before the optimizing compiler pays, and it takes a core of two.
        "-XX:TieredStopAtLevel=1",
        "-XX:+UseSerialGC",
        *(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED),
        "-cp",
        os.pathsep.join(str(jar) for jar in classpath),
        str(HERE / "GraphServer.java"),
        str(folder / "data"),
        str(port),
        str(procedures),
    ]
    with (
        log.open("wb") as output,
        # Its standard input ends with this process, and it ends with its standard input.
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True
        ) as process,
    ):
        try:
            assert process.stdin is not None
            process.stdin.write(f"{password}\n".encode())
            process.stdin.flush()
            _wait_until_ready(process, log)
            yield {
                "LEADML_NEO4J_URI": f"bolt://127.0.0.1:{port}",
                "LEADML_NEO4J_USER": USER,
                "LEADML_NEO4J_PASSWORD": password,
                "LEADML_NEO4J_DATABASE": DATABASE,
            }
        finally:
            _end(process)


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while b"ready\n" not in log.read_bytes():
        if process.poll() is not None or time.monotonic() > deadline:
            tail = log.read_text(encoding="utf-8", errors="replace")[-3000:]
            raise RuntimeError(f"the Neo4j server of the tests did not start:\n{tail}")
        time.sleep(0.1)


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _classpath() -> list[Path]:
    """The jars of the server, from the cache or from Maven."""
    pom = HERE / "pom.xml"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "leadml-tests"
    cache.mkdir(parents=True, exist_ok=True)
    kept = cache / f"neo4j-{hashlib.sha256(pom.read_bytes()).hexdigest()[:16]}.classpath"
    # Two test sessions at once would write one repository at once.
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        jars = _read(kept)
        if not jars or not all(jar.exists() for jar in jars):
            _ask_maven(pom, kept)
            jars = _read(kept)
    return jars


def _read(kept: Path) -> list[Path]:
    text = kept.read_text(encoding="utf-8").strip() if kept.exists() else ""
    return [Path(part) for part in text.split(os.pathsep) if part]


def _ask_maven(pom: Path, kept: Path) -> None:
    part = kept.with_suffix(".part")
    command = ["mvn", "-B", "-q", "-f", str(pom), "dependency:build-classpath"]
    try:
        done = subprocess.run(
            [*command, f"-Dmdep.outputFile={part}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_MAVEN_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Neo4jUnavailableError(
            f"Maven did not fetch the Neo4j server within {_MAVEN_SECONDS} seconds"
        ) from error
    if done.returncode or not part.exists():
        errors = [line for line in done.stdout.splitlines() if "[ERROR]" in line]
        raise Neo4jUnavailableError(
            f"Maven could not fetch the Neo4j server: {' '.join(errors[:2]) or done.stderr.strip()}"
        )
    part.replace(kept)


def _require_java() -> str:
    """The path of `java`, if everything is there that the server needs."""
    java = shutil.which("java")
    missing = [tool for tool in ("java", "javac", "mvn") if shutil.which(tool) is None]
    if java is None or missing:
        raise Neo4jUnavailableError(
            f"the Neo4j server needs a JDK {_JAVA} and Maven, and there is no "
            f"{' and no '.join(missing)} on the path"
        )
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=True).stderr
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version[1]) < _JAVA:
        raise Neo4jUnavailableError(f"the Neo4j server needs Java {_JAVA}, and java is {said!r}")
    return java


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
