"""The routing step by the compiled kernels."""

from __future__ import annotations

import ctypes
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcd.calibration.assets import AssetSet, RoutingPolicy, TierRule
from tcd.calibration.lookup import Kept
from tcd.contract import TIERS
from tcd.native import layout
from tcd.native.chosen import Chosen
from tcd.native.memory import address
from tcd.routing.policy import DEFAULT_POLICY
from tcd.rowwise import Inputs, Outputs

#: Inputs in the order of `struct routing_call`, their types and widths.
_INPUTS: Final = (
    ("DETECTOR_P", np.float64, 2),
    ("DETECTOR_SUP", np.float64, 1),
    ("DETECTOR_LEVEL", np.float64, 1),
    ("DETECTOR_ASSET", np.uint64, 1),
    ("DETECTOR_STATUS", np.int32, 1),
    ("MULTIVARIATE_P", np.float64, 2),
    ("MULTIVARIATE_SUP", np.float64, 1),
    ("MULTIVARIATE_ASSET", np.uint64, 1),
    ("MULTIVARIATE_STATUS", np.int32, 1),
    ("LENGTHS", np.int32, 6),
    ("ALPHA", np.float64, 1),
    ("BASE", np.float32, 4),
)
OUT: Final = layout.Block(
    (
        ("SCORE", np.float32, (1,)),
        ("P_STEP", np.float64, (2,)),
        ("SUP_OUT", np.float64, (2,)),
        ("P_VALUE", np.float64, (1,)),
        ("TRIGGER", np.int32, (1,)),
        ("VERDICT", np.int32, (1,)),
        ("TIER", np.int32, (1,)),
        ("STATUS", np.int32, (1,)),
        ("ROUTE", np.float32, (4,)),
        ("ASSETS", np.uint64, (3,)),
    )
)
_MOST_POLICIES: Final = 4096


def _rule(rule: TierRule) -> layout.Rule:
    low, high = rule.temperature or (0.0, 0.0)
    return layout.Rule(
        *(low, high, rule.top_p or 0.0, rule.max_tokens or 0.0, rule.decoder),
        *(value is not None for value in (rule.temperature, rule.top_p, rule.max_tokens)),
    )


class _Policy(layout.Policy):
    """`struct policy`."""

    def __init__(self, policy: RoutingPolicy) -> None:
        self.policy = policy
        if len(policy.tiers) != len(TIERS):
            msg = f"a policy of {len(policy.tiers)} tiers"
            raise ValueError(msg)
        rules = (layout.Rule * len(TIERS))(*map(_rule, policy.tiers))
        super().__init__(policy.asset_id, policy.weight, policy.drift, policy.failed, rules)


_MAKE: Final = Kept(_Policy, most=32)
_Known = dict[int, tuple[_Policy, bool, Chosen]]
_FOUND: Final[Kept[AssetSet, _Known]] = Kept(lambda _: {}, most=8)


def _look(value: int, assets: AssetSet, known: _Known) -> tuple[_Policy, bool, Chosen]:
    """The policy that answers an id, and whether that is the one which was asked for."""
    if len(known) >= _MOST_POLICIES:
        known.clear()
    policy = assets.policy(value)
    made = _MAKE(policy or assets.policy(0) or DEFAULT_POLICY)
    same = policy is not None or value == 0
    answer = known[value] = (made, same, Chosen([made], [same]))
    return answer


def find(key: tuple[int, ...], assets: AssetSet) -> tuple[layout.Policy, bool]:
    """The structure of the policy that answers an id (the key's first number), and whether it is that policy."""
    known = _FOUND(assets)
    policy, same, _ = known.get(key[0]) or _look(key[0], assets, known)
    return policy, same


def _chosen(ids: NDArray[np.generic], assets: AssetSet) -> Chosen:
    known = _FOUND(assets)
    values = ids[:, 0].tolist()
    if len(set(values)) == 1:
        return (known.get(values[0]) or _look(values[0], assets, known))[2]
    found = [known.get(value) or _look(value, assets, known) for value in values]
    return Chosen([policy for policy, _, _ in found], [same for _, same, _ in found])


def route(library: ctypes.CDLL, inputs: Inputs, assets: AssetSet) -> Outputs:
    """Route a batch of N >= 1 rows, as `tcd.routing.route`.

    Raises:
        ValueError: a policy or a tensor does not fit the kernels.
    """
    n = inputs["POLICY"].shape[0]
    arrays = [layout.exactly(inputs[name], dtype, (n, width)) for name, dtype, width in _INPUTS]
    chosen = _chosen(inputs["POLICY"], assets)
    out, places = OUT.make(n)
    library.tcd_route(layout.ROUTING_CALL.pack(n, *map(address, arrays), *chosen.fields, *places))
    return out
