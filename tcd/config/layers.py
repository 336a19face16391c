"""Layers of settings: defaults < TOML file < environment `TCD_*` < command line; and where each value came from.

Unknown `TCD_*` names are an error that names the nearest known one.
"""

from __future__ import annotations

import difflib
import importlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource

from tcd.config.settings import PREFIX, SECRETS, Settings
from tcd.errors import ConfigError

# tomllib came with Python 3.11; tomli is the same parser
TOML: Final = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
#: `TCD_*` names that are no settings of the shim but are read elsewhere.
FOREIGN: Final = frozenset({"TCD_CONFIG_PATH", "TCD_NATIVE", "TCD_NATIVE_LIBRARY", "TCD_TEST_SKIPS"})


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings and where each value came from (`default`, a file, `env NAME` or `command line`)."""

    settings: Settings
    origins: Mapping[str, str]


class _Environ(EnvSettingsSource):
    """pydantic-settings' reading of environment values (JSON for complex types), from a given mapping."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = {k.lower(): v for k, v in environ.items()}
        super().__init__(Settings)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return self._environ


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def _from_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    known = [PREFIX + field.upper() for field in Settings.model_fields]
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in FOREIGN and name not in known:
            msg = f"{name} is no setting{_nearest(name, [*known, *FOREIGN])}"
            raise ConfigError(msg)
    mine = {name: value for name, value in environ.items() if name in known and value != ""}
    try:
        return dict(_Environ(mine)())
    except ValueError as error:
        # the error of pydantic-settings names the field but not its value
        msg = f"environment: {error} (lists and tables are JSON there)"
        raise ConfigError(msg) from None


def _from_file(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = TOML.loads(path.read_text("utf-8"))
    except OSError as error:
        msg = f"{path}: {error.strerror}"
        raise ConfigError(msg) from error
    except (TOML.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"{path}: {error}"
        raise ConfigError(msg) from error
    for name in values:
        if name not in Settings.model_fields:
            msg = f"{path}: {name} is no setting{_nearest(name, list(Settings.model_fields))}"
            raise ConfigError(msg)
    return values


def load(environ: Mapping[str, str], *, cli: Mapping[str, Any] | None = None, path: Path | None = None) -> Loaded:
    """Merge the layers.

    Args:
        environ: the environment; only `TCD_*` names are looked at.
        cli: values given on the command line; `None` values are taken as not given.
        path: the TOML file; default `TCD_CONFIG_PATH`, else no file.

    Raises:
        ConfigError: a name is unknown, a value is wrong, or the file cannot be read. Never shows a value.
    """
    if path is None and environ.get("TCD_CONFIG_PATH"):
        path = Path(environ["TCD_CONFIG_PATH"])
    layers: list[tuple[str, dict[str, Any]]] = []
    if path is not None:
        layers.append((f"file {path}", _from_file(path)))
    layers.append(("env", _from_environ(environ)))
    layers.append(("command line", {k: v for k, v in (cli or {}).items() if v is not None}))
    values: dict[str, Any] = {}
    origins = dict.fromkeys(Settings.model_fields, "default")
    for origin, layer in layers:
        values.update(layer)
        for name in layer:
            origins[name] = f"env {PREFIX}{name.upper()}" if origin == "env" else origin
    try:
        settings = Settings(**values)
    except ValidationError as error:
        problems = [_problem(e["loc"], e["msg"], origins) for e in error.errors(include_input=False, include_url=False)]
        raise ConfigError("; ".join(problems)) from None
    return Loaded(settings, origins)


def _problem(loc: tuple[int | str, ...], message: str, origins: Mapping[str, str]) -> str:
    if not loc:
        return message
    name = ".".join(map(str, loc))
    return f"{name} ({origins.get(str(loc[0]), 'command line')}): {message}"


def shown(settings: Settings, name: str) -> str:
    """The value of one setting as people may see it: secrets hidden."""
    value = getattr(settings, name)
    if name in SECRETS:
        return "(hidden)" if value else "(none)"
    return json.dumps(settings.model_dump(mode="json", include={name})[name])
