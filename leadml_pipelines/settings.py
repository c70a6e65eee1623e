"""Every setting of LeadML, typed, in one place.

A setting comes, in this order of precedence, from the environment (`LEADML_<NAME>`), from
`leadml.toml` in the home folder, or from the default below. Secrets are `SecretStr`: printing a
`Settings` never shows them.
"""

from __future__ import annotations

import os
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from leadml_pipelines.errors import UserError
from leadml_pipelines.times import parse_duration

SETTINGS_FILE = "leadml.toml"


class ModelOverrides(BaseModel):
    """What a deployment changes in a model: `[models.<name>]` in leadml.toml."""

    model_config = ConfigDict(extra="forbid")

    horizon: timedelta | None = Field(None, description="how far the label looks ahead, as in 30d")
    every: timedelta | None = Field(None, description="spacing of the calendar cut-off times")
    ages: tuple[timedelta, ...] | None = Field(
        None, description="ages after creation at which a lead is also scored, as in 24h"
    )
    test_share: float | None = Field(None, gt=0, lt=1, description="newest share kept for testing")
    max_rows: int | None = Field(None, gt=0, description="most rows of a training set")
    learner: Literal["xgboost", "stack"] | None = Field(
        None, description="`stack`: trees blended with a linear model where that is better"
    )
    hyperparameter_tuning: bool | None = Field(None, description="whether parameters are searched")
    tuner: Literal["grid", "optuna"] | None = Field(None, description="how they are searched")
    tuning_trials: int | None = Field(None, gt=0, description="most combinations optuna tries")
    tuning_seconds: float | None = Field(None, gt=0, description="when optuna stops even so")
    floor: float | None = Field(None, description="what a candidate's metric must beat")
    slice_floor: float | None = Field(None, description="what no slice's may be worse than")
    max_calibration_error: float | None = Field(
        None, gt=0, lt=1, description="greatest expected calibration error of a candidate"
    )
    max_total_error: float | None = Field(
        None, gt=0, description="how far the sum of predicted values may be from what came"
    )
    risk_levels: tuple[float, float, float] | None = Field(
        None, description="chances from which the risk is medium, high and critical"
    )

    @field_validator("horizon", "every", mode="before")
    @classmethod
    def _one_duration(cls, value: Any) -> Any:
        return parse_duration(value) if isinstance(value, str) else value

    @field_validator("ages", mode="before")
    @classmethod
    def _durations(cls, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return tuple(parse_duration(v) if isinstance(v, str) else v for v in value)
        return value


class Settings(BaseSettings):
    """All settings. The descriptions below become the table in `docs/settings.md`."""

    # What was put in is hidden in errors: under a misspelt name it may be a password.
    model_config = SettingsConfigDict(
        env_prefix="LEADML_", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    home: Path = Field(Path(".leadml"), description="folder of everything LeadML writes on disk")

    postgres_url: SecretStr | None = Field(
        None, description="PostgreSQL, `postgresql://user:password@host:port/database`"
    )
    redis_url: SecretStr | None = Field(
        None, description="Redis, `redis://:password@host:port/0` or `rediss://...`"
    )
    neo4j_uri: str | None = Field(
        None, description="Bolt graph, `bolt://host:port` or `neo4j+s://...`"
    )
    neo4j_user: str = Field("neo4j", description="user of the graph")
    neo4j_password: SecretStr | None = Field(None, description="password of the graph")
    neo4j_database: str = Field("neo4j", description="database of the graph")

    crm_schema: str = Field(
        "crm", pattern=r"^[a-z_][a-z0-9_]*$", description="schema of the source tables or views"
    )
    clock: Literal["now", "data"] = Field(
        "now",
        description="`now`: features are as of the present; `data`: as of the newest row, "
        "for a historical data set",
    )
    models: dict[str, ModelOverrides] = Field(
        default_factory=dict, description="changes to the models' declarations, by model name"
    )
    artifacts_url: str | None = Field(
        None,
        description="where the models' files lie: a folder, or any address that fsspec knows, as "
        "in `s3://bucket/models`; the folder `artifacts` of the home folder if unset",
    )
    signing_key: SecretStr | None = Field(
        None,
        description="key that signs the models' files, 16 characters or more, the same for all who "
        "register or load models; `signing.key` in the home folder, made once, if unset",
    )
    auto_promote: bool = Field(
        True,
        description="whether the nightly training promotes a candidate that passed its gate; "
        "if not, a person does with `leadml models promote`",
    )
    model_retention_days: int = Field(
        90,
        ge=0,
        description="days that the files of models are kept which neither answer nor answered "
        "lately; 0: for ever",
    )
    model_retention_newest: int = Field(
        5, ge=1, description="newest models of each name whose files are kept, however old"
    )

    features_keep_days: int = Field(
        90,
        ge=1,
        description="days of feature history and of served vectors that are kept; "
        "the newest checked snapshot always stays",
    )
    history_start: date = Field(
        date(2025, 1, 1), description="first day whose features can be backfilled"
    )
    audit_sample: float = Field(
        0.01,
        ge=0,
        le=1,
        description="share of the served vectors that is logged for the skew audit; 0: none",
    )
    prediction_log: bool = Field(
        True, description="whether predictions are logged, for experiments and monitoring"
    )
    prediction_log_keep_days: int = Field(
        400, ge=1, description="days of logged predictions that are kept"
    )
    prediction_log_stream: int = Field(
        200_000,
        ge=1,
        description="logged predictions that may wait in Redis for PostgreSQL, about 0.5 KB each",
    )
    drift_psi_limit: float = Field(
        0.2, gt=0, description="population stability index over which a column has drifted"
    )
    drift_ks_limit: float = Field(
        0.2,
        gt=0,
        le=1,
        description="distance of Kolmogorov and Smirnov over which a column has drifted",
    )
    drift_expected: str = Field(
        "",
        description="columns whose drift is known and neither an alert nor a reason to train "
        "again, separated by commas",
    )
    monitoring_min_rows: int = Field(
        200, ge=1, description="fewest rows or predictions that drift and alerts are judged by"
    )
    live_window_days: int = Field(
        30, ge=1, description="days of predictions with a known outcome that a model is judged by"
    )
    reports_keep_days: int = Field(
        14, ge=1, description="days that drift reports are kept; the newest always stays"
    )
    retraining_cooldown_hours: float = Field(
        24, ge=0, description="hours after a training began in which drift asks for no other"
    )
    alert_performance_drop: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="share of its test figure by which a model's live accuracy or ROC AUC may be "
        "lower",
    )
    alert_stale_share: float = Field(
        0.05, ge=0, le=1, description="most predictions from stale features, as a share"
    )
    alert_cache_hit_rate: float = Field(
        0.80, ge=0, le=1, description="fewest predictions whose features were in Redis, as a share"
    )
    alert_latency_ms: float = Field(
        50,
        gt=0,
        description="target of the 95th percentile of a prediction's latency, in milliseconds",
    )
    alert_training_success: float = Field(
        0.95, ge=0, le=1, description="fewest trainings that end with a model, as a share"
    )
    alert_webhook: SecretStr | None = Field(
        None, description="address that alerts are posted to as JSON, `https://...`"
    )
    online_ttl_seconds: int = Field(3600, ge=1, description="how long an online value lives")
    duckdb_memory_limit: str = Field("4GB", description="memory DuckDB may take before it spills")
    duckdb_threads: int | None = Field(
        None, ge=1, description="threads of DuckDB; all cores if unset"
    )
    training_threads: int | None = Field(
        None, ge=1, description="threads of training; all if unset"
    )
    device: Literal["cpu", "cuda"] = Field(
        "cpu", description="where models are trained; `cuda` falls back to `cpu` without a GPU"
    )
    seed: int = Field(7, description="seed of everything random in training")

    http_host: str = Field("127.0.0.1", description="address the HTTP app listens on")
    http_port: int = Field(
        8000, ge=0, le=65535, description="port of the HTTP app; 0 picks a free one"
    )
    api_keys_sha256: str = Field(
        "",
        description="SHA-256 (hex) of each key that may call the HTTP app, separated by commas; "
        "needed to listen on anything but loopback",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least important log line that is written"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments win over the environment, which wins over the home folder's file."""
        given = init_settings().get("home")
        home = Path(given or os.environ.get("LEADML_HOME") or cls.model_fields["home"].default)
        file = TomlConfigSettingsSource(settings_cls, toml_file=home / SETTINGS_FILE)
        return init_settings, env_settings, file

    @cached_property
    def root(self) -> Path:
        """The home folder as an absolute path."""
        return self.home.absolute()

    @property
    def extracts(self) -> Path:
        """Folder of the bulk extracts of the source tables (Parquet)."""
        return self.root / "extracts"

    @property
    def training_sets(self) -> Path:
        """Folder of the finished training sets (Parquet)."""
        return self.root / "training_sets"

    @property
    def artifacts(self) -> str:
        """Address of the folder of the trained models' files."""
        return self.artifacts_url or (self.root / "artifacts").as_uri()

    @property
    def reports(self) -> Path:
        """Folder of the drift reports (HTML)."""
        return self.root / "reports"

    @property
    def tuning(self) -> Path:
        """Folder in which searches for parameters keep their trials."""
        return self.root / "tuning"

    def require_postgres(self) -> str:
        """The PostgreSQL URL, in the clear, for a driver.

        Raises:
            MissingSettingError: it is not set.
        """
        return self._secret("postgres_url")

    def require_redis(self) -> str:
        """The Redis URL, in the clear, for a driver.

        Raises:
            MissingSettingError: it is not set.
        """
        return self._secret("redis_url")

    def require_neo4j(self) -> tuple[str, str, str, str]:
        """URI, user, password and database of the graph.

        Raises:
            MissingSettingError: URI or password is not set.
        """
        if self.neo4j_uri is None:
            raise MissingSettingError("neo4j_uri")
        return self.neo4j_uri, self.neo4j_user, self._secret("neo4j_password"), self.neo4j_database

    def _secret(self, name: str) -> str:
        value = getattr(self, name)
        if value is None:
            raise MissingSettingError(name)
        return str(value.get_secret_value())


class MissingSettingError(UserError):
    """A setting that this command needs has no value."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"LEADML_{name.upper()} is not set; set it, or start the embedded services with "
            '`leadml up` and run `eval "$(leadml env)"`'
        )


def settings_table() -> str:
    """All settings as a Markdown table, for `docs/settings.md`."""
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True, validated_data={})
        shown = "" if default is None or default in ("", {}) else f"`{default}`"
        meaning = (field.description or "").replace("|", "\\|")
        lines.append(f"| `LEADML_{name.upper()}` | {shown} | {meaning} |")
    return "\n".join(lines)
