"""The asset directory is looked at now and then, and at once where a row says that it changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sidecar_api.pins import LOOK_SECONDS, Resolver, Shape
from tcd.calibration.assets import AssetSet

KEY, SHAPE = (1, 2, 3), Shape.of(0b1111, 2, 16)


@dataclass
class Changing:
    assets: AssetSet
    looks: int = 0

    def current(self) -> AssetSet:
        self.looks += 1
        return self.assets


def test_a_change_is_seen_after_a_moment_and_at_once_when_asked(kit: Any) -> None:
    now = [100.0]
    source = Changing(kit.synthetic_assets(digest="a"))
    resolver = Resolver(source, alpha=0.05, clock=lambda: now[0])
    first = resolver.pins(KEY, SHAPE)
    assert resolver.pins(KEY, SHAPE) is first
    source.assets = kit.synthetic_assets(digest="b")
    now[0] += LOOK_SECONDS / 2
    assert resolver.pins(KEY, SHAPE) is first
    assert source.looks == 1
    fresh = resolver.pins(KEY, SHAPE, fresh=True)
    assert (fresh.digests[3], source.looks) == ("sha256:" + "b" * 64, 2)
    source.assets = kit.synthetic_assets(digest="c")
    now[0] += LOOK_SECONDS
    assert resolver.pins(KEY, SHAPE).digests[3] == "sha256:" + "c" * 64
    assert source.looks == 3


def test_pins_are_the_same_by_what_must_not_change(kit: Any) -> None:
    resolver = Resolver(Changing(kit.synthetic_assets()), alpha=0.05)
    pins = resolver.pins(KEY, SHAPE)
    again = Resolver(Changing(kit.synthetic_assets()), alpha=0.1).pins(KEY, SHAPE)
    assert again is not pins
    assert pins.same(again)
    assert not pins.same(resolver.pins(KEY, Shape.of(0b1011, 2, 16)))
    assert not pins.same(resolver.pins((4, 2, 3), SHAPE))
