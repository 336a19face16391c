"""Build hook of the wheel: compiles the kernels of `tcd/native` where a C compiler is there, and goes on without."""

from __future__ import annotations

import importlib.util
import re
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class KernelHook(BuildHookInterface[Any]):
    """Adds the library to the wheel, which then is one for this platform (any Python: it is loaded by ctypes)."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's signature
        """Compile before the files are collected; an editable install finds the library beside the sources."""
        root = Path(self.root)
        spec = importlib.util.spec_from_file_location("tcd_native_build", root / "tcd" / "native" / "build.py")
        if spec is None or spec.loader is None:
            return
        build = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(build)
        try:
            library = build.ensure()
        except (build.NoCompiler, OSError) as error:
            self.app.display_warning(f"tcd without compiled kernels, scoring with numpy: {error}")
            return
        build_data["artifacts"].append(f"/{library.relative_to(root)}")
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-" + re.sub(r"[-.]", "_", sysconfig.get_platform())
