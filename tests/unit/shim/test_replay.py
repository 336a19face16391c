"""A decision replays from its receipt, its request and the published assets to the same bits; anything else is seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tcd.calibration import AssetSet, default_asset_dir, load_assets
from tcd.calibration.store import write_asset, write_manifest
from tcd.cli.main import app
from tcd.receipts import KeySet, SigningKey, canonical
from tcd.receipts.body import CONTEXT, head_of, signature_input
from tcd.risk_av.exact import hex64
from tcd.scoring import LibraryScorer
from tests.unit.shim.conftest import SEED_HEX
from tests.unit.shim.test_confidence import conditional_assets

COLS = 16


def publish(folder: Path, assets: AssetSet) -> Path:
    """The asset directory, as an operator publishes it."""
    for detector in assets.detectors.values():
        write_asset(folder, detector)
    for monitor in assets.multivariates.values():
        write_asset(folder, monitor)
    for policy in assets.routing.values():
        write_asset(folder, policy)
    write_manifest(folder, bindings=assets.bindings.values(), default=assets.default, policies=assets.policies)
    return folder


def steps(rng: np.random.Generator, count: int, mask: int, **more: Any) -> list[dict[str, Any]]:
    """A session whose temperature blows up half way."""
    made = []
    for t in range(count):
        hot = 8.0 if t >= count // 2 else 1.0
        made.append(
            {
                "trace_vector": (-rng.exponential(hot, int(rng.integers(1, 4)))).tolist(),
                "entropy": float(rng.exponential(hot)),
                "spectrum": np.sort(rng.exponential(1.0, COLS))[::-1].tolist(),
                "features": rng.normal(size=COLS).tolist(),
                "model_id": "m",
                "tenant": "t",
                "session": "s",
                "step_id": t,
                "context": {"temperature": 0.9},
                **more,
            }
        )
    names = {2: "entropy", 4: "spectrum", 8: "features"}
    absent = [name for bit, name in names.items() if not mask & bit]
    return [{name: value for name, value in request.items() if name not in absent} for request in made]


async def session_of(client: Any, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    answers = []
    for request in requests:
        reply = await client.post(request)
        assert reply.status == 200, reply.body
        answers.append({**reply.json(), "req_obj": request})
    return answers


@pytest.fixture
def replay(tmp_path: Path) -> Any:
    def run(client: Any, answers: list[dict[str, Any]], assets: Path) -> tuple[int, dict[str, Any]]:
        issuer = client.app.runtime.service.judge.receipts.issuer
        (tmp_path / "keys.json").write_text(json.dumps(KeySet([issuer.pinned()]).to_json()))
        (tmp_path / "session.jsonl").write_text("".join(f"{json.dumps(answer)}\n" for answer in answers))
        options = ["--keyset", str(tmp_path / "keys.json"), "--assets", str(assets)]
        done = CliRunner().invoke(app, ["verify", "replay", str(tmp_path / "session.jsonl"), *options, "--json"])
        return done.exit_code, json.loads(done.stdout)

    return run


async def test_every_decision_of_a_session_comes_out_the_same(make_client: Any, tmp_path: Path, replay: Any) -> None:
    assets = conditional_assets()
    published = publish(tmp_path / "assets", assets)
    client = make_client(LibraryScorer(assets), assets=assets)
    rng = np.random.default_rng(5)
    triggered = 0
    for mask in (1, 3, 15):
        requests = steps(rng, 40, mask, session=f"s{mask}")
        answers = await session_of(client, requests)
        code, found = replay(client, answers, published)
        assert (code, found["ok"]) == (0, True), found
        assert [row["scored"] for row in found["decisions"]] == [True] * 40
        triggered += answers[-1]["trigger"]
        assert mask == 3 or len({answer["score"] for answer in answers}) > 1
    assert triggered >= 1


async def test_a_whole_window_replays_by_itself(make_client: Any, replay: Any) -> None:
    published = default_asset_dir()
    assets = load_assets(published)
    client = make_client(LibraryScorer(assets), assets=assets)
    rng = np.random.default_rng(6)
    request = {
        "window": "full",
        "trace_vector": (-rng.exponential(2.0, 300)).tolist(),
        "entropy_window": rng.exponential(2.0, 300).tolist(),
        "feature_window": rng.normal(size=(8, COLS)).tolist(),
        "session": "w",
    }
    answers = await session_of(client, [request, {**request, "session": "v", "trace_vector": [-1.0] * 40}])
    for answer in answers:
        code, found = replay(client, [answer], published)
        assert (code, found["ok"]) == (0, True), found


async def test_what_does_not_follow_is_named(make_client: Any, tmp_path: Path, replay: Any) -> None:
    assets = conditional_assets()
    published = publish(tmp_path / "assets", assets)
    client = make_client(LibraryScorer(assets), assets=assets)
    answers = await session_of(client, steps(np.random.default_rng(7), 20, 1))

    def differences(shown: list[dict[str, Any]], where: Path = published) -> set[str]:
        code, found = replay(client, shown, where)
        assert (code, found["code"]) == (1, "replay_mismatch"), found
        return {name for row in found["decisions"] for name in row["differences"]}

    # without the session's beginning the windows are others than those committed to
    assert "witness.trace" in differences(answers[1:])
    # other assets
    assert "assets" in differences(answers, default_asset_dir())
    # the issuer itself signs what did not come out
    for change, name in (
        (lambda body: body["decision"].update(score=hex64(0.123)), "decision.score"),
        (lambda body: body["decision"].update(threshold=hex64(0.5)), "decision.threshold"),
        (lambda body: body["decision"].update(trigger=not body["decision"]["trigger"]), "decision.trigger"),
        (lambda body: body["av"].update(p=hex64(1e-9)), "av.p"),
        (lambda body: body["components"]["invertibility"].update(z=hex64(9.0)), "components.invertibility"),
        (lambda body: body["components"]["multivariate"].update(p=hex64(0.5)), "components.multivariate"),
        (lambda body: body["witness"][0].update(salt="0" * 32), "witness.trace"),
    ):
        assert differences([*answers[:-1], resigned(answers[-1], change)]) == {name}
    # what was not signed is no matter of replay
    spoiled = {**answers[3], "req_obj": {**answers[3]["req_obj"], "trace_vector": [-9.0]}}
    assert replay(client, [*answers[:3], spoiled], published) == (
        1,
        {"ok": False, "code": "concordance", "first_bad": 3},
    )
    assert replay(client, [{**answer, "req_obj": None} for answer in answers], published)[0] != 0


def resigned(answer: dict[str, Any], change: Any) -> dict[str, Any]:
    key = SigningKey.from_hex(SEED_HEX)
    value = json.loads(answer["receipt_body"])
    change(value)
    body = canonical.write(value)
    head = head_of(body)
    sig = key.sign(signature_input(suite="Ed25519", kid=key.kid, head=head), CONTEXT)
    return {**answer, "receipt": head.hex(), "receipt_body": body.decode(), "receipt_sig": sig.hex()}
