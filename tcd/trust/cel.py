"""Optional conditions in CEL (https://cel.dev) on whose step it is and what its caller said of it.

An expression sees the subject and the request's `context`, never a risk: so for any one step the decision table stays
monotone in risk. It has no loops and no regular expressions, so its cost is bounded by its length.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

#: Characters of an expression.
MAX_EXPRESSION: Final = 1024
_MACRO: Final = re.compile(r"\b(all|exists|exists_one|existsOne|map|filter|transform\w*)\s*\(")
_FUNCTIONS: Final = frozenset(
    {
        *(
            "!_",
            "-_",
            "_&&_",
            "_||_",
            "_?_:_",
            "_==_",
            "_!=_",
            "_<_",
            "_<=_",
            "_>_",
            "_>=_",
            "_+_",
            "_-_",
            "_*_",
            "_/_",
        ),
        *("_%_", "_[_]", "@in", "size", "startsWith", "endsWith", "contains", "int", "double", "string", "has"),
    }
)
Values = Mapping[str, Any]


class Condition:
    """A compiled expression.

    Attributes:
        variables: those that it uses.
    """

    def __init__(self, source: str, names: frozenset[str]) -> None:
        """Compile.

        Args:
            source: the expression; a boolean.
            names: variables that it may use.

        Raises:
            ValueError: it is too long, no CEL, or uses what is not there; or the extra `cel` is not installed.
        """
        if len(source) > MAX_EXPRESSION:
            msg = f"an expression has at most {MAX_EXPRESSION} characters"
            raise ValueError(msg)
        found = _MACRO.search(source)
        if found is not None:
            msg = f"{found[1]}() is a loop: an expression has none"
            raise ValueError(msg)
        try:
            # an extra: the rest of policies does without
            compiler: Callable[[str], Any] = importlib.import_module("cel").compile
        except ImportError:
            msg = "a CEL condition needs the extra cel (Python 3.11 or newer); remedy: pip install 'tcd[cel]'"
            raise ValueError(msg) from None
        try:
            self._program = compiler(source)
        except ValueError as error:
            raise ValueError(str(error).partition("ERROR: ")[2].splitlines()[0][:200] or "no CEL expression") from None
        self.variables: set[str] = {*self._program.variables()}
        unknown = [*sorted(self.variables - names), *sorted({*self._program.functions()} - _FUNCTIONS)]
        if unknown:
            msg = f"{unknown[0]} is not there; there are {', '.join(sorted(names))}"
            raise ValueError(msg)

    def __call__(self, values: Values) -> bool | None:
        """Whether it holds; None when it cannot be said (a member that is not there, a type that does not fit)."""
        try:
            found = self._program.execute(values)
        except Exception:  # noqa: BLE001 - whatever the evaluator cannot do with these values, the caller decides
            return None
        return found if isinstance(found, bool) else None
