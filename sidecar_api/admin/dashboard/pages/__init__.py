"""The pages: what each of them shows, from the sources to a template. They only read."""

from __future__ import annotations

from sidecar_api.admin.dashboard.pages.budgets import BudgetPages
from sidecar_api.admin.dashboard.pages.decisions import DecisionPages
from sidecar_api.admin.dashboard.pages.frame import Frame
from sidecar_api.admin.dashboard.pages.overview import OverviewPage
from sidecar_api.admin.dashboard.pages.plane import PlanePages
from sidecar_api.admin.dashboard.pages.receipts import ReceiptPages
from sidecar_api.admin.dashboard.pages.sessions import SessionPages
from sidecar_api.admin.dashboard.rendering import Renderer
from sidecar_api.admin.dashboard.sources import Sources
from sidecar_api.admin.plane import Plane

__all__ = ["Pages"]


class Pages:
    """Every page of the dashboard."""

    def __init__(self, plane: Plane, sources: Sources, renderer: Renderer) -> None:
        """Show `sources` to principals of `plane`."""
        self.frame = Frame(plane, renderer)
        self.overview = OverviewPage(self.frame, sources, plane)
        self.budgets = BudgetPages(self.frame, sources)
        self.decisions = DecisionPages(self.frame, sources, plane)
        self.receipts = ReceiptPages(self.frame, sources)
        self.sessions = SessionPages(self.frame, sources)
        self.plane = PlanePages(self.frame, sources, plane)
