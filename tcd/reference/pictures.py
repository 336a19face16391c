"""The pictures of the documentation."""

from __future__ import annotations

from tcd.reference.drawing import Drawing


def architecture() -> str:
    """Who sends what to whom."""
    d = Drawing(
        860, 430, "A model server sends signals to the shim; the shim reserves, has Triton score, settles, answers"
    )
    d.box(20, 60, 150, 84, "model server", "Triton, vLLM, TGI,", "transformers, …")
    d.zone(225, 20, 400, 320, "tcd")
    d.box(245, 50, 165, 104, "shim", "strict input, budgets,", "sessions, policies,", "receipts", kind="ours")
    d.box(
        445,
        50,
        160,
        104,
        "Triton ensemble",
        "detector, monitor,",
        "routing: a pure",
        "function of its tensors",
        kind="ours",
    )
    d.box(245, 225, 165, 84, "ledger", "SQLite, or PostgreSQL", "for several shims", kind="ours")
    d.box(445, 225, 160, 84, "transparency log", "Merkle tree, signed", "checkpoints", kind="ours")
    d.box(690, 50, 150, 84, "calibration assets", "fitted on healthy", "generations")
    d.box(690, 225, 150, 84, "witnesses", "cosign one history")
    d.box(20, 225, 150, 84, "operator", "admin plane, metrics,", "alerts, dashboard")
    d.box(445, 365, 395, 50, "auditor", "verifies receipts and the log offline, with pinned keys")
    d.arrow((170, 85), (245, 85), words="signals", at=(197, 78))
    d.arrow((245, 125), (170, 125), words="decision,", at=(197, 142))
    d.text(197, 157, "receipt")
    d.arrow((410, 85), (445, 85))
    d.arrow((445, 125), (410, 125))
    d.arrow((327, 154), (327, 225))
    d.text(334, 207, "one transaction per batch", anchor="start")
    d.arrow((410, 267), (445, 267))
    d.arrow((690, 92), (605, 92), words="read", at=(650, 86))
    d.arrow((605, 258), (690, 258))
    d.arrow((690, 282), (605, 282))
    # to the shim and its admin plane
    d.arrow((170, 267), (225, 267))
    d.arrow((525, 309), (525, 365))
    d.arrow((95, 144), (95, 180), (525, 180), (525, 154))
    d.text(100, 195, "or directly: KServe v2", anchor="start")
    return d.svg()


def lifecycle() -> str:
    """Reserve, score, settle, along one generation."""
    d = Drawing(860, 400, "Reserve, score, settle: the level is fixed and durable before the evidence exists")
    columns = {"model server": 90, "shim": 320, "ledger": 545, "ensemble": 770}
    for name, x in columns.items():
        d.box(x - 70, 15, 140, 34, name, kind="box" if name == "model server" else "ours")
        d.line((x, 49), (x, 385))
    m, s, w, e = columns.values()
    steps = [
        (m, s, "signals of the first step", 85),
        (s, w, "reserve: cost debited, level fixed", 120),
        (w, s, "durable", 150),
        (s, e, "windows, ALPHA, running maxima", 190),
        (e, s, "score, p-value, route", 220),
        (s, w, "settle: decision, receipt, leaf", 265),
        (w, s, "durable", 295),
        (s, m, "verdict, action, route, receipt", 330),
    ]
    for a, b, words, y in steps:
        d.arrow((a, y), (b, y), words=words)
    d.text(m + 8, 362, "next step: same level, no cost", anchor="start")
    d.text(s + 112, 240, "p ≤ ALPHA, checked again, bit for bit")
    return d.svg()


def receipts() -> str:
    """What a receipt hangs on."""
    d = Drawing(
        860, 350, "Receipts form a chain per session and are leaves of one Merkle log with witnessed checkpoints"
    )
    for i, (x, y) in enumerate([(25, 35), (25, 135), (25, 235)]):
        d.box(x, y, 190, 78, f"receipt of step {i}", "body, head = H(body)", "signature", kind="ours")
    d.arrow((120, 135), (120, 113), words="prev", at=(128, 128), anchor="start")
    d.arrow((120, 235), (120, 213), words="prev", at=(128, 228), anchor="start")
    leaves = [300, 370, 440, 510]
    for x, name in zip(leaves, ["leaf", "leaf", "leaf", "leaf"], strict=True):
        d.box(x - 28, 245, 56, 34, name)
    for x, sides in ((335, (300, 370)), (475, (440, 510))):
        d.box(x - 28, 150, 56, 34, "node")
        for leaf in sides:
            d.line((x, 184), (leaf, 245))
    d.box(405 - 32, 55, 64, 34, "root", kind="ours")
    d.line((405, 89), (335, 150))
    d.line((405, 89), (475, 150))
    d.arrow((215, 262), (272, 262), words="head")
    d.box(560, 40, 140, 64, "checkpoint", "size, root, signature", kind="ours")
    d.arrow((437, 72), (560, 72))
    d.box(560, 170, 140, 64, "witnesses", "cosign it")
    d.arrow((630, 170), (630, 104))
    d.box(735, 105, 105, 64, "auditor", "pinned keys")
    d.arrow((700, 72), (787, 72), (787, 105))
    d.text(405, 315, "A proof of inclusion is one hash per level:")
    d.text(405, 331, "20 hashes in a log of a million receipts.")
    d.text(700, 285, "Whoever keeps one checkpoint")
    d.text(700, 301, "sees any later change of history.")
    return d.svg()


def boundaries() -> str:
    """Who is trusted with what."""
    d = Drawing(860, 360, "Trust boundaries: callers, the host, operators, and the outside")
    d.zone(15, 20, 195, 320, "callers: not trusted")
    d.box(32, 55, 160, 64, "model server", "may lie about signals")
    d.box(32, 145, 160, 64, "text in prompts", "may carry instructions")
    d.box(32, 235, 160, 64, "direct callers", "bring their own evidence")
    d.zone(240, 20, 380, 320, "the host: trusted with keys and the ledger")
    d.box(262, 55, 160, 64, "shim", "checks all that comes in", kind="ours")
    d.box(440, 55, 160, 64, "Triton", "its answers are checked", kind="ours")
    d.box(262, 235, 160, 64, "admin plane", "two people, signed", kind="ours")
    d.box(440, 235, 160, 64, "ledger, keys", "append-only rows, 0600", kind="ours")
    d.zone(650, 20, 195, 320, "outside: trusts pinned keys")
    d.box(667, 55, 160, 64, "auditor", "verifies offline")
    d.box(667, 145, 160, 64, "witness", "refuses a second history")
    d.box(667, 235, 160, 64, "operators", "hold their own keys")
    d.arrow((192, 87), (262, 87))
    d.arrow((192, 177), (230, 177), (230, 100), (262, 100))
    d.arrow((192, 267), (246, 267), (246, 110), (262, 110))
    d.arrow((422, 87), (440, 87))
    d.arrow((342, 119), (342, 177), (520, 177), (520, 235))
    d.arrow((600, 250), (632, 250), (632, 87), (667, 87))
    d.arrow((600, 262), (640, 262), (640, 177), (667, 177))
    d.arrow((747, 299), (747, 322), (342, 322), (342, 299), words="signed requests", at=(525, 317))
    return d.svg()


PICTURES = {
    "architecture.svg": architecture,
    "lifecycle.svg": lifecycle,
    "receipts.svg": receipts,
    "boundaries.svg": boundaries,
}
