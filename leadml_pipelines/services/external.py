"""Servers that the settings name: used instead of the embedded ones, and left alone."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

import psycopg

from leadml_pipelines.services.errors import ServiceError
from leadml_pipelines.services.home import Home
from leadml_pipelines.services.postgresql import DAGSTER_DATABASE, ensure_database
from leadml_pipelines.settings import Settings

DAGSTER_VARIABLE = "LEADML_DAGSTER_URL"
_TIMEOUT = 10
"""Seconds that a named server gets to answer."""


def external_settings(home: Home) -> dict[str, dict[str, str]]:
    """By name of the service, the settings of each that the environment or leadml.toml names.

    What `leadml env` printed for the embedded services of a home does not count: in a shell that
    evaluated it, `up`, `down` and `status` shall go on as before, and with `--home` they are about
    the other home's own servers.
    """
    settings = Settings(home=home.path)
    printed = _printed_passwords(home)
    named: dict[str, dict[str, str]] = {}
    if settings.postgres_url is not None:
        url = settings.require_postgres()
        if not _has_password(url, printed["postgres"]):
            named["postgres"] = {"LEADML_POSTGRES_URL": url}
    if settings.redis_url is not None:
        url = settings.require_redis()
        if not _has_password(url, printed["redis"]):
            named["redis"] = {"LEADML_REDIS_URL": url}
    if settings.neo4j_uri is not None:
        uri, user, password, database = settings.require_neo4j()
        if password not in printed["graph"]:
            named["graph"] = {
                "LEADML_NEO4J_URI": uri,
                "LEADML_NEO4J_USER": user,
                "LEADML_NEO4J_PASSWORD": password,
                "LEADML_NEO4J_DATABASE": database,
            }
    return named


def require_answer(name: str, settings: dict[str, str]) -> None:
    """Ask a named server something.

    Args:
        name: `postgres`, `redis` or `graph`.
        settings: Its entry in `external_settings`.

    Raises:
        ServiceError: it does not answer, or refuses user or password.
    """
    ask = {"postgres": _ask_postgres, "redis": _ask_redis, "graph": _ask_graph}[name]
    reason = ask(settings)
    if reason is not None:
        variable = next(iter(settings))
        raise ServiceError(
            f"{variable} names {address_of(settings[variable])}, but {reason}; start that server, "
            f"or unset {variable} to use the embedded one"
        )


def dagster_url(home: Home, settings: dict[str, str], *, external: bool) -> str | None:
    """The URL of Dagster's storage: the one given, else a database beside LeadML's own.

    Args:
        home: The home.
        settings: Settings with `LEADML_POSTGRES_URL`, if it is known.
        external: Whether that is a server named by the settings.
    """
    given = os.environ.get(DAGSTER_VARIABLE)
    if given and not _has_password(given, _printed_passwords(home)["postgres"]):
        return given
    url = settings.get("LEADML_POSTGRES_URL")
    if url is None:
        return None
    # On a server of one's own several deployments may have their databases side by side.
    name = f"{_database(url)}_{DAGSTER_DATABASE}" if external else DAGSTER_DATABASE
    return urlsplit(url)._replace(scheme="postgresql+psycopg2", path=f"/{name}").geturl()


def make_dagster_database(home: Home, settings: dict[str, str]) -> None:
    """Make the database of Dagster's storage on a named server, unless it is given as well.

    Raises:
        ServiceError: it is not there and may not be made.
    """
    url = settings["LEADML_POSTGRES_URL"]
    storage = dagster_url(home, settings, external=True)
    if storage is None or storage == os.environ.get(DAGSTER_VARIABLE):
        return
    name = _database(storage)
    try:
        ensure_database(url, name)
    except psycopg.Error as error:
        raise ServiceError(
            f"the database {name} for Dagster's storage is not on {address_of(url)} and can't be "
            f"made there ({str(error).strip()}); make it, or name another one in "
            f"{DAGSTER_VARIABLE} as postgresql+psycopg2://user:password@host:port/database"
        ) from error


def address_of(url: str) -> str:
    """Host and port of a URL without user, password and options, to be shown to people."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{place}" if parts.scheme.startswith(("bolt", "neo4j")) else place


def _ask_postgres(settings: dict[str, str]) -> str | None:
    try:
        with psycopg.connect(
            settings["LEADML_POSTGRES_URL"], connect_timeout=_TIMEOUT
        ) as connection:
            connection.execute("SELECT 1")
    except psycopg.OperationalError as error:
        return str(error).strip()
    return None


def _ask_redis(settings: dict[str, str]) -> str | None:
    import redis

    try:
        with redis.Redis.from_url(
            settings["LEADML_REDIS_URL"], socket_connect_timeout=_TIMEOUT
        ) as client:
            client.ping()
    except redis.RedisError as error:
        return str(error)
    return None


def _ask_graph(settings: dict[str, str]) -> str | None:
    from neo4j import GraphDatabase
    from neo4j.exceptions import DriverError, Neo4jError

    user, password = settings["LEADML_NEO4J_USER"], settings["LEADML_NEO4J_PASSWORD"]
    try:
        with (
            GraphDatabase.driver(
                settings["LEADML_NEO4J_URI"], auth=(user, password), connection_timeout=_TIMEOUT
            ) as driver,
            driver.session(database=settings["LEADML_NEO4J_DATABASE"]) as session,
        ):
            session.run("RETURN 1").consume()  # `execute_query` would try for half a minute.
    except (DriverError, Neo4jError) as error:
        return str(error)
    return None


def _printed_passwords(home: Home) -> dict[str, set[str]]:
    """By service, the generated passwords of this home and of the one `LEADML_HOME` names."""
    known = [home.secrets()]
    named = os.environ.get("LEADML_HOME")
    if named:
        # One that can't be read was not ours to print either.
        with contextlib.suppress(ServiceError):
            known.append(Home(Path(named)).secrets())
    return {
        name: {passwords[name] for passwords in known if name in passwords}
        for name in ("postgres", "redis", "graph")
    }


def _has_password(url: str, passwords: set[str]) -> bool:
    given = urlsplit(url).password
    return given is not None and unquote(given) in passwords


def _database(url: str) -> str:
    return unquote(urlsplit(url).path.lstrip("/")) or "postgres"
