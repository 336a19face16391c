"""The settings: one immutable object from defaults < TOML file < environment `TCD_*` < command line."""

from tcd.config.layers import FOREIGN, TOML, Loaded, load, shown
from tcd.config.settings import PREFIX, SECRETS, ApiToken, Dependency, RateOverride, Scope, Settings

__all__ = [
    "FOREIGN",
    "PREFIX",
    "SECRETS",
    "TOML",
    "ApiToken",
    "Dependency",
    "Loaded",
    "RateOverride",
    "Scope",
    "Settings",
    "load",
    "shown",
]
