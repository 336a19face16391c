"""What operators do to the controller is a leaf before it happens; docs/controller.md has the leaf of each event."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tcd.risk_av import Acknowledged, EpochOpened, Reserved, events, stream_digest
from tcd.risk_av.events import Configured
from tests.integration.admin.kit import Running, full_for, running
from tests.integration.admin.test_areas import alarmed

PAGE = Path(__file__).resolve().parents[3] / "docs" / "controller.md"
KINDS = {found.kind for found in vars(events).values() if isinstance(found, type) and hasattr(found, "kind")}


def test_the_page_names_every_event_and_no_other() -> None:
    section = PAGE.read_text().partition("## Events and the log\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(KINDS)
    assert len(KINDS) == 12


async def written(admin: Running) -> tuple[list[Any], list[dict[str, Any]]]:
    """The events and the bodies of the log."""
    await admin.runtime.service.judge.flush()
    return list((await admin.runtime.ledger.events()).events), await admin.bodies()


async def test_what_people_and_requests_do_to_the_controller_is_signed(tmp_path: Path) -> None:
    async with running(tmp_path, alpha=0.5) as admin:
        await admin.enrol()
        await alarmed(admin, "s")
        await admin.two("/alarms:ack", {"tenant": "acme"})
        now = admin.runtime.settings
        tighter = type(now)(**{**{name: getattr(now, name) for name in type(now).model_fields}, "alpha": 0.25})
        admin.runtime.reread = lambda: (tighter, None)
        await admin.post("/config:reload")
        admin.scorer.p = 0.5
        await admin.shim.step(session="later", tenant="acme", step_id=0, trace_vector=[-1.0] * 64)
        made, bodies = await written(admin)

        acts = [body["admin"]["action"] for body in bodies if body["typ"] == "admin"]
        assert acts.index("alarm.ack") < acts.index("config.put")
        # nobody but those two changed the controller itself
        (cleared,) = [event for event in made if isinstance(event, Acknowledged)]
        (record,) = [body["ack"] for body in bodies if body["typ"] == "ack"]
        assert (record["stream"], record["claim"]) == (stream_digest(cleared.stream), cleared.claim)
        configured = [event for event in made if isinstance(event, Configured)]
        assert [event.params.alpha for event in configured if not event.stream][-1] == 0.25
        configs = {body["config"] for body in bodies}
        assert len(configs) == 2

        # and what requests made of it is in the records that they got
        opened = {(e.stream, e.epoch) for e in made if isinstance(e, EpochOpened)}
        told = [b["open"] for b in bodies if b["typ"] == "open" and b["open"]["scope"] == "epoch"]
        assert {(stream_digest(stream), epoch) for stream, epoch in opened} == {(o["stream"], o["epoch"]) for o in told}
        reserved = {(e.epoch, e.index, e.seq) for e in made if isinstance(e, Reserved)}
        decided = {(b["av"]["epoch"], b["av"]["index"], b["av"]["seq"]) for b in bodies if b["typ"] == "decision"}
        assert reserved
        assert reserved == decided


async def test_an_act_that_cannot_be_recorded_leaves_the_controller_as_it_is(tmp_path: Path) -> None:
    async with running(tmp_path, alpha=0.5) as admin:
        await admin.enrol()
        await alarmed(admin, "s")
        now = admin.runtime.settings
        tighter = type(now)(**{**{name: getattr(now, name) for name in type(now).model_fields}, "alpha": 0.25})
        admin.runtime.reread = lambda: (tighter, None)
        before = await written(admin)
        with full_for(admin.runtime.ledger, "admin"):
            await admin.two("/alarms:ack", {"tenant": "acme"}, status=503)
            await admin.post("/config:reload", status=503)
        events_, bodies = await written(admin)
        changes = (Acknowledged, Configured)
        assert [e for e in events_ if isinstance(e, changes)] == [e for e in before[0] if isinstance(e, changes)]
        assert [b for b in bodies if b["typ"] == "ack"] == []
        assert admin.runtime.settings.alpha == 0.5
        (alarm,) = (await admin.get("/alarms"))["alarms"]
        assert alarm["alarm"]
