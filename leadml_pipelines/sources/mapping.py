"""The mapping: a TOML file that tells how somebody's files become the contract's tables.

`examples/bpi2012/mapping.toml` shows every part of it. Unknown keys are errors that name them.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from leadml_pipelines.errors import UserError
from leadml_pipelines.settings import ModelOverrides, Settings
from leadml_pipelines.sources.contract import EVENT_TYPES, TABLES, Table

_NOT_A_MAPPINGS = {"home", "models", "postgres_url", "redis_url", "crm_schema"}
_LEAD_VALUE = re.compile(r"product_interest|source|state|campaign_id|household_id|attributes\..+")
_EVENT_COLUMNS = ("event_type", "channel", "direction")


class MappingError(UserError, ValueError):
    """The mapping, or a file it names, is not as it must be; the text says where and what."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Part):
    """Where a column's value comes from: exactly one of these.

    In TOML a plain text is short for `{ column = "..." }`.
    """

    column: str | None = Field(None, description="the value of this column of the file")
    constant: str | int | float | bool | None = Field(None, description="the same for every row")
    template: str | None = Field(None, description="text with columns in it: `{case_id}:{idx}`")
    lead: str | None = Field(
        None, description="a value of the lead: a column, or `attributes.<name>` (only in `won`)"
    )

    @model_validator(mode="after")
    def _one(self) -> Source:
        given = [name for name, value in self if value is not None]
        if len(given) != 1:
            raise ValueError(
                "give exactly one of column, constant, template, lead"
                + (f", not {' and '.join(given)}" if given else "")
            )
        if self.template is not None:
            parts = list(Formatter().parse(self.template))
            if not self.columns or any(spec or conversion for _, _, spec, conversion in parts):
                raise ValueError(
                    f"the template {self.template!r} must name columns as in {{case_id}}:{{idx}}, "
                    "without formats"
                )
        if self.lead is not None and not _LEAD_VALUE.fullmatch(self.lead):
            raise ValueError(
                f"{self.lead!r} is not product_interest, source, state, campaign_id, "
                "household_id or attributes.<name>"
            )
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the file that the value needs."""
        if self.column is not None:
            return (self.column,)
        if self.template is not None:
            fields = [name for _, name, _, _ in Formatter().parse(self.template)]
            return tuple(dict.fromkeys(name for name in fields if name))
        return ()


def _short(value: Any) -> Any:
    return {"column": value} if isinstance(value, str) else value


def _many(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


def _patterns(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Value = Annotated[Source, BeforeValidator(_short)]
Patterns = Annotated[tuple[str, ...], BeforeValidator(_patterns)]
When = dict[str, Patterns]
"""Column -> patterns, of which one must fit; `*` stands for any text. All columns must fit."""


class Files(_Part):
    """`[files.<name>]`: files that have the same columns."""

    path: str = Field(description="pattern below the data folder, as in `events/*.parquet`")
    format: Literal["csv", "parquet"] | None = Field(
        None, description="what the files are; by default their suffix says it"
    )
    time_zone: str | None = Field(
        None,
        description="zone of times that have none, as in `Europe/Amsterdam`; without it such rows "
        "go to the quarantine. A time that the clock shows twice in autumn is taken for the later "
        "one, so that nothing is seen before it happened; one that it skips in spring is read as "
        "if the clock had not been moved yet",
    )
    time_format: str | None = Field(
        None,
        description="how times are written in text, as in `%d.%m.%Y %H:%M`, or `epoch_s` or "
        "`epoch_ms` for numbers; by default ISO 8601",
    )
    delimiter: str = Field(",", min_length=1, max_length=1, description="between columns of a CSV")
    encoding: str = Field("utf-8", description="of a CSV")
    decimal_point: Literal[".", ","] = Field(".", description="in numbers of a CSV")

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                ZoneInfo(value)
            except (ZoneInfoNotFoundError, ValueError) as error:
                raise ValueError(f"{value!r} is not a time zone, as in Europe/Amsterdam") from error
        return value


class Load(_Part):
    """`[<table>]`: how rows of a table are made of rows of files."""

    file: str = Field(description="name of a `[files.<name>]`")
    when: When = Field(default_factory=dict, description="only rows that fit")
    columns: dict[str, Value] = Field(description="column of the contract -> where it comes from")
    attributes: dict[str, Value] = Field(default_factory=dict, description="only for leads")


class Rule(_Part):
    """`[[lead_events.rules]]`: what an event of the file is called; the first that fits counts."""

    when: When = Field(description="columns of the file and what they must be")
    skip: bool = Field(False, description="such a row is not an event; it is counted as skipped")
    event_type: str | None = None
    channel: str | None = Field(None, description="by default what is usual for the event type")
    direction: Literal["inbound", "outbound", "internal"] | None = None
    outcome: str | None = Field(
        None,
        description="`won` makes a policy (see `[won]`); any other text closes the lead with "
        "this reason, as in `lost` or `declined`",
    )

    @model_validator(mode="after")
    def _whole(self) -> Rule:
        if self.skip:
            return self
        if self.event_type is None:
            raise ValueError(f"the rule for {self.when} names no event_type (or skip = true)")
        if self.event_type not in EVENT_TYPES and not (self.channel and self.direction):
            raise ValueError(
                f"{self.event_type} is not one of the known event types "
                f"({', '.join(EVENT_TYPES)}); name its channel and direction, too"
            )
        return self

    def names(self) -> tuple[str | None, str | None, str | None]:
        """Event type, channel and direction, with what is usual filled in."""
        channel, direction = EVENT_TYPES.get(self.event_type or "", (None, None))
        return self.event_type, self.channel or channel, self.direction or direction


class EventLoad(Load):
    """`[lead_events]`: events, which rules may name and which may decide a lead's outcome."""

    properties: dict[str, Value] = Field(default_factory=dict, description="kept with the event")
    rules: tuple[Rule, ...] = Field((), description="without rules the columns say it all")
    automatic_agents: tuple[str, ...] = Field(
        (), description="values of agent_id that are machines: the event is kept, its agent is not"
    )
    create_agents: bool = Field(False, description="add agents that events name to the agents")


class Won(_Part):
    """`[won]`: the policy that an event with outcome `won` makes."""

    policy_id: Value
    product: Value
    annual_premium: Value


class Handover(_Part):
    """`[assignments_from_events]`: the agent of a lead is who worked on it last.

    Who does the first event that fits is assigned then, until another agent does one. The mapping
    owns the assignments of the leads whose events it loads: others of these leads are removed.
    """

    when: When = Field(
        description="columns of lead_events, or `properties.<name>`, and what they must be"
    )

    @field_validator("when")
    @classmethod
    def _known(cls, value: When) -> When:
        columns = {c.name for c in TABLES["lead_events"].columns if c.type == "text"}
        for name in value:
            if name not in columns and not re.fullmatch(r"properties\..+", name):
                raise ValueError(
                    f"{name} is not one of {', '.join(sorted(columns))} or properties.<name>"
                )
        return value


Loads = Annotated[tuple[Load, ...], BeforeValidator(_many)]


class Mapping(_Part):
    """A whole mapping file."""

    files: dict[str, Files]
    leads: Loads = ()
    agents: Loads = ()
    lead_events: Annotated[tuple[EventLoad, ...], BeforeValidator(_many)] = ()
    assignments: Loads = ()
    policies: Loads = ()
    closures: Loads = ()
    referrals: Loads = ()
    won: Won | None = None
    assignments_from_events: Handover | None = None
    settings: dict[str, Any] = Field(
        default_factory=dict, description="settings that suit the data, for leadml.toml"
    )
    models: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="changes to models that suit the data, for leadml.toml"
    )

    @classmethod
    def read(cls, path: Path) -> Mapping:
        """Read and check a mapping file.

        Raises:
            MappingError: it can't be read, or is not a mapping; every fault is named.
        """
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise MappingError(f"the mapping {path} can't be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise MappingError(f"the mapping {path} is not TOML: {error}") from error
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            faults = "\n".join(f"  {_place(e['loc'])}: {_text(e)}" for e in error.errors())
            raise MappingError(f"the mapping {path} has faults:\n{faults}") from error

    def loads(self, table: str) -> tuple[Load, ...]:
        """The loads of a contract table, in the order of the file."""
        loads: tuple[Load, ...] = getattr(self, table)
        return loads

    @field_validator("settings")
    @classmethod
    def _known_settings(cls, value: dict[str, Any]) -> dict[str, Any]:
        allowed = {
            name: field
            for name, field in Settings.model_fields.items()
            if name not in _NOT_A_MAPPINGS and not name.startswith(("neo4j", "http", "api"))
        }
        for name, setting in value.items():
            if name not in allowed:
                raise ValueError(f"{name} is not a setting a mapping may make")
            field = allowed[name]
            kind: Any = Annotated[field.annotation, field]
            TypeAdapter(kind).validate_python(setting)
        return value

    @field_validator("models")
    @classmethod
    def _known_models(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for overrides in value.values():
            ModelOverrides.model_validate(overrides)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Mapping:
        for name in TABLES:
            for load in getattr(self, name, ()):
                _check_load(TABLES[name], load, self.files)
        outcomes = {rule.outcome for load in self.lead_events for rule in load.rules}
        if "won" in outcomes and self.won is None:
            raise ValueError("a rule has the outcome won, but there is no [won] section")
        return self

    def settings_toml(self) -> str:
        """The settings and model changes of the mapping as the text of a `leadml.toml`."""
        lines = [f"{name} = {_toml(value)}" for name, value in self.settings.items()]
        for model, overrides in self.models.items():
            lines += ["", f"[models.{model}]"]
            lines += [f"{name} = {_toml(value)}" for name, value in overrides.items()]
        return "\n".join(lines).strip() + "\n" if lines else ""


def load_mapping(path: Path) -> Mapping:
    """Read and check a mapping file; the same as `Mapping.read`."""
    return Mapping.read(path)


def _check_load(table: Table, load: Load, files: dict[str, Files]) -> None:
    if load.file not in files:
        raise ValueError(
            f"[{table.name}] reads file {load.file!r}; there are [files] {', '.join(files) or '-'}"
        )
    given = set(load.columns)
    objects = {"attributes", "properties"}
    unknown = [name for name in load.columns if name not in table.names or name in objects]
    if unknown:
        raise ValueError(
            f"[{table.name}.columns] has {', '.join(unknown)}; its columns are "
            f"{', '.join(name for name in table.names if name not in objects)}"
        )
    if load.attributes and table.name != "leads":
        raise ValueError(f"[{table.name}] has attributes; only leads have them")
    if isinstance(load, EventLoad) and load.rules:
        named = [name for name in _EVENT_COLUMNS if name in given]
        if named:
            raise ValueError(f"[lead_events.columns] has {', '.join(named)}, but the rules say it")
        given.update(_EVENT_COLUMNS)
    missing = [
        c.name for c in table.columns if c.required and not c.default and c.name not in given
    ]
    if missing:
        raise ValueError(f"[{table.name}.columns] lacks {', '.join(missing)}")
    for source in _sources(load):
        if source.lead is not None:
            raise ValueError(f"[{table.name}] asks for a value of the lead; only [won] may")


def _sources(load: Load) -> Iterator[Source]:
    yield from load.columns.values()
    yield from load.attributes.values()
    if isinstance(load, EventLoad):
        yield from load.properties.values()


def needed_columns(load: Load, won: Won | None) -> tuple[str, ...]:
    """The columns of the file that a load reads."""
    names = [name for source in _sources(load) for name in source.columns]
    names += load.when
    if isinstance(load, EventLoad):
        names += [name for rule in load.rules for name in rule.when]
        if won is not None and any(rule.outcome == "won" for rule in load.rules):
            for source in (won.policy_id, won.product, won.annual_premium):
                names += source.columns
    return tuple(dict.fromkeys(names))


def _place(location: tuple[int | str, ...]) -> str:
    parts = [str(part) for part in location]
    return ".".join(parts) or "the whole"


def _text(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "there is no such key"
    return str(error["msg"]).removeprefix("Value error, ")


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
