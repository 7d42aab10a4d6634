"""The server's settings: the only place that reads the environment.

A flag wins over `PREFIXMUX_<FLAG>`, which wins over the `--config` file, which wins over the
default. Resolved once at start, then frozen.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from prefixmux_server.engine.settings import EngineSettings
from prefixmux_server.errors import UsageError

Count = Annotated[int, Field(ge=1)]
Bytes = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Settings(BaseSettings):
    """Every flag of `serve`; sizes in tokens or bytes as named, None: derived from the machine."""

    model_config = SettingsConfigDict(
        env_prefix="PREFIXMUX_",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
    )

    model: str
    store: Path = Path("prefixmux-store")
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    layout: Literal["auto", "rows", "slots"] = "auto"
    threads: Count | None = None
    max_batch_rows: Count = 64
    max_batch_tokens: Count = 2048
    max_waiting: Count = 1024
    kv_tokens: Count | None = None
    prefix_host_bytes: Bytes | None = None
    prefix_device_bytes: Bytes | None = None
    max_prefix_tokens: Count = 1024
    max_body_bytes: Count = 1 << 20
    max_upload_bytes: Count = 1 << 30
    max_connections: Count = 1024
    max_request_seconds: Seconds = 3600.0
    hang_seconds: Seconds = 30.0
    drain_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 30.0
    preload: str = ""
    metrics_open: bool = False
    metrics_max_tasks: Annotated[int, Field(ge=0)] = 100
    audit_file: Path | None = None
    audit_max_bytes: Count = 1 << 26
    audit_backups: Count = 10
    allow_anonymous: bool = False
    config: Path | None = None

    @model_validator(mode="after")
    def _every_row_advances(self) -> Self:
        """A step runs one token of every row, whatever else it holds."""
        if self.max_batch_tokens < self.max_batch_rows:
            raise PydanticCustomError("batch", "max-batch-tokens must be at least max-batch-rows")
        return self

    @property
    def audit_path(self) -> Path | None:
        """None: no audit is kept, by `none` in place of a file."""
        if self.audit_file is None:
            return self.store / "audit.jsonl"
        return None if self.audit_file == Path("none") else self.audit_file

    @property
    def engine(self) -> EngineSettings:
        """What the engine process is told."""
        return EngineSettings(
            model=self.model,
            store=str(self.store),
            device=self.device,
            dtype=self.dtype,
            max_batch_rows=self.max_batch_rows,
            max_batch_tokens=self.max_batch_tokens,
            max_waiting=self.max_waiting,
            kv_tokens=self.kv_tokens,
            prefix_host_bytes=self.prefix_host_bytes,
            prefix_device_bytes=self.prefix_device_bytes,
            max_prefix_tokens=self.max_prefix_tokens,
            threads=self.threads,
            layout=self.layout,
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
        named = init_settings().get("config") or env_settings().get("config")
        values = _read(Path(str(named))) if named else {}
        return init_settings, env_settings, InitSettingsSource(settings_cls, values)


def resolve(flags: Mapping[str, object]) -> Settings:
    """`flags` by their names with `-` or `_`; one that is None was not given.

    Raises `UsageError` for an unknown name or a bad value, wherever it stands.
    """
    given: dict[str, Any] = {_name(key): value for key, value in flags.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        raise UsageError("\n".join(map(_line, error.errors(include_url=False)))) from error
    except SettingsError as error:
        raise UsageError("A PREFIXMUX_ variable of the environment cannot be read.") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"--config: {path} cannot be read.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"--config: {path} is not YAML.") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UsageError(f"--config: {path} must map the names of flags to values.")
    return {_name(str(key)): value for key, value in content.items()}


def _name(key: str) -> str:
    return key.replace("-", "_")


def _line(entry: Mapping[str, Any]) -> str:
    name = ".".join(map(str, entry["loc"])).replace("_", "-")
    if entry["type"] == "missing":
        return f"{name}: is needed."
    if entry["type"] == "extra_forbidden":
        return f"{name}: there is no such setting."
    return f"{name}: {entry['msg']}." if name else f"{entry['msg']}."
