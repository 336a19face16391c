"""Pictures of the dashboard for docs/dashboard.md: `python -m tests.e2e.screenshots` writes them to docs/images.

Seeded, without Triton; needs Chromium. Look at them before they are committed.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.browser import Page, browsing
from tests.integration.admin.stage import BLOCKED, Threaded, threaded

ROOT = Path(__file__).resolve().parents[2]
#: Name, page, and how it is looked at.
PICTURES: tuple[tuple[str, str, dict[str, int | bool]], ...] = (
    ("overview", "", {}),
    ("session", "sessions/{subject}", {}),
    ("session-narrow", "sessions/{subject}", {"width": 390, "height": 844}),
    ("receipt", "receipts/{head}", {}),
    ("triggers-dark", "triggers", {"dark": True}),
    ("scores-dark", "scores", {"dark": True}),
)


def take(stage: Threaded, page: Page, out: Path) -> None:
    """All pictures."""
    page.open(stage.do(stage.stage.login()))
    page.link("Sign in")
    subject = stage.stage.app.runtime.service.subjects.subject(*BLOCKED.values())
    for name, path, looked in PICTURES:
        page.look(**{"width": 1180, **looked})  # type: ignore[arg-type]
        page.open(f"{stage.url}/ui/{path.format(subject=subject, head=stage.stage.blocked['receipt'])}")
        page.picture(out / f"{name}.png", whole="height" not in looked)


def main() -> None:
    """Take them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "dashboard")
    parser.add_argument("--sessions", type=int, default=60)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        threaded(Path(folder), sessions=given.sessions, hostile=False) as stage,
        browsing(Path(folder) / "browser", script=False) as page,
    ):
        take(stage, page, given.out)


if __name__ == "__main__":
    main()
