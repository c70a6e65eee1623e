"""The three servers and the settings, as resources that assets and sensors ask for by name.

Addresses are given as `EnvVar`, so that Dagster's UI shows the variable and never its value.
"""

from typing import TYPE_CHECKING

import dagster as dg

from leadml_pipelines.settings import Settings

if TYPE_CHECKING:
    from leadml_pipelines.learning.registry.registry import Registry
    from leadml_pipelines.online.model_pointers import ModelPointers
    from leadml_pipelines.online.store import OnlineStore


class PostgresResource(dg.ConfigurableResource):
    """The system of record.

    Attributes:
        url: `postgresql://user:password@host:port/database`.
    """

    url: str


class RedisResource(dg.ConfigurableResource):
    """The online store, and the pointers to the models.

    Attributes:
        url: `redis://:password@host:port/0`.
    """

    url: str

    def store(self) -> "OnlineStore":
        """The online store on this server."""
        from leadml_pipelines.online.store import OnlineStore

        return OnlineStore(self.url, ttl_seconds=Settings().online_ttl_seconds)

    def model_pointers(self) -> "ModelPointers":
        """The pointers to the models that answer, on this server."""
        from leadml_pipelines.online.model_pointers import ModelPointers

        return ModelPointers(self.url)


class GraphResource(dg.ConfigurableResource):
    """The relationship graph.

    Attributes:
        uri: `bolt://host:port` or `neo4j+s://...`.
        user: name to log in with.
        password: its password.
        database: database of the graph.
    """

    uri: str
    user: str
    password: str
    database: str

    def login(self) -> tuple[str, str, str, str]:
        """URI, user, password and database, in the order the graph room takes them."""
        return self.uri, self.user, self.password, self.database


class SettingsResource(dg.ConfigurableResource):
    """Everything that is not an address: paths, knobs, changes to the models' declarations."""

    def load(self) -> Settings:
        """Read the settings anew, so that a change takes effect with the next run."""
        return Settings()


def registry(postgres: PostgresResource, settings: SettingsResource) -> "Registry":
    """The model registry: rows in PostgreSQL, files in the artifact folder."""
    from leadml_pipelines.learning.registry.registry import Registry

    return Registry.of(settings.load(), postgres.url)


def connections() -> dict[str, dg.ConfigurableResource]:
    """The resources by the names that assets and sensors use, addresses from the environment."""
    return {
        "postgres": PostgresResource(url=dg.EnvVar("LEADML_POSTGRES_URL")),
        "redis": RedisResource(url=dg.EnvVar("LEADML_REDIS_URL")),
        "graph": GraphResource(
            uri=dg.EnvVar("LEADML_NEO4J_URI"),
            user=dg.EnvVar("LEADML_NEO4J_USER"),
            password=dg.EnvVar("LEADML_NEO4J_PASSWORD"),
            database=dg.EnvVar("LEADML_NEO4J_DATABASE"),
        ),
        "settings": SettingsResource(),
    }
