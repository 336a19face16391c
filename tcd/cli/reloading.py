"""Reload of `tcd serve`: on SIGHUP, and when a file of settings, policies, grant or key set changes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tcd.bundles import configured, files_of
from tcd.config import load
from tcd.errors import TcdError
from tcd.reload import Grant, read_grant

if TYPE_CHECKING:
    from sidecar_api.http.surface import ShimApp
    from sidecar_api.reload import Reloader
    from tcd.config import Settings
    from tcd.trust import PolicySet

_LOG: Final = logging.getLogger("tcd.reload")
_SECONDS: Final = 1.0
_Stamp = tuple[int, int, int] | None


def _stamp(path: Path) -> _Stamp:
    """What changes when a file does, also by a rename over it (config maps, editors)."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


class ReloadOn:
    """Reads the layers and the bundle of policies again and hands them to the reloader."""

    def __init__(
        self,
        reloader: Reloader,
        settings: Settings,
        *,
        cli: Mapping[str, Any],
        path: Path | None,
        complete: Callable[[Settings], Settings] = lambda settings: settings,
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Reload with the same command line, file and environment as at the start.

        `complete` adds what the start added to the layers: the receipt key of the data directory.
        """
        self._complete = complete
        self._reloader, self._settings = reloader, settings
        self._said = ""
        self._cli, self._environ, self._clock = dict(cli), dict(environ), clock
        named = environ.get("TCD_CONFIG_PATH")
        self._path = path if path is not None else Path(named) if named else None

    def now(self, source: str) -> bool:
        """Reload; whether it was done. What is wrong is logged, and the old settings stay."""
        try:
            new, bundle = self.read()
            self._reloader.apply(new, self._grant(), source=source, policies=bundle)
        except TcdError as error:
            _LOG.error("reload by %s: %s", source, error.detail)
            return False
        return self.keys(source)

    def read(self) -> tuple[Settings, PolicySet | None]:
        """Settings and bundle as the layers and files have them now.

        Raises:
            ConfigError: they cannot be used.
        """
        new = self._complete(load(self._environ, cli=self._cli, path=self._path).settings)
        return new, configured(new.policies, new.policies_json)

    def keys(self, source: str) -> bool:
        """Use the key set as it is now, where it changed; False when it cannot be used, which is logged once."""
        try:
            self._reloader.keys(source=source)
        except TcdError as error:
            if error.detail != self._said:
                self._said = error.detail
                _LOG.error("keys by %s: %s", source, error.detail)
            return False
        self._said = ""
        return True

    def _grant(self) -> Grant | None:
        # key and place are those of the start: a reload cannot bring its own
        path, public = self._settings.break_glass_grant, self._settings.break_glass_key_hex
        if path is None or public is None or not path.exists():
            return None
        try:
            return read_grant(path.read_text("utf-8", "replace"), public_hex=public, now=self._clock())
        except TcdError as error:
            _LOG.error("%s: %s", path, error.detail)
            return None

    def _stamps(self) -> dict[Path, _Stamp]:
        files = {self._path, self._settings.break_glass_grant}
        bundle = self._settings.policies
        if bundle is not None:
            with contextlib.suppress(TcdError):
                files.update(files_of(bundle))
        return {path: _stamp(path) for path in files if path is not None}

    async def watch(self, *, seconds: float = _SECONDS) -> None:
        """Reload whenever one of the files or the key set changes; runs until it is cancelled."""
        last = self._stamps()
        while True:
            await asyncio.sleep(seconds)
            seen = self._stamps()
            if seen != last:
                last = seen
                self.now("file")
            else:
                self.keys("file")


@contextlib.asynccontextmanager
async def reloading(
    app: ShimApp, *, cli: Mapping[str, Any], path: Path | None, complete: Callable[[Settings], Settings]
) -> AsyncIterator[None]:
    """Reload on SIGHUP, and when a file changes; the arguments are those of `ReloadOn`."""
    from sidecar_api.reload import Reloader
    from tcd.background import running

    settings, loop = app.runtime.settings, asyncio.get_running_loop()
    on = ReloadOn(Reloader(app.runtime), settings, cli=cli, path=path, complete=complete)
    app.runtime.reread = on.read
    loop.add_signal_handler(signal.SIGHUP, on.now, "SIGHUP")
    try:
        async with running(on.watch()) if settings.config_watch else contextlib.nullcontext():
            yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
