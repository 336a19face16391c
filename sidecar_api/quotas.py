"""The rate limit: one bucket of tokens per subject."""

from __future__ import annotations

from sidecar_api.outcome import Quota, SubjectQuotaExceeded
from sidecar_api.schemas import DiagnoseRequest
from tcd.config import Settings
from tcd.rate_limit import Limit, TokenBuckets, token_cost


class Quotas:
    """The buckets of all subjects, and the limits of tenants and models that have their own."""

    def __init__(self, settings: Settings) -> None:
        """As the settings say."""
        self._limit = Limit(settings.http_rate_cap, settings.http_rate_refill)
        self._divisor = settings.token_cost_divisor
        self._buckets = TokenBuckets(self._limit, max_keys=settings.rate_subjects)
        self._overrides = {(o.tenant, o.model_id): o for o in settings.rate_overrides}

    def charge(self, request: DiagnoseRequest, *, now: float) -> Quota:
        """Take a step's tokens from its subject's bucket.

        Args:
            request: the step.
            now: on the loop's clock.

        Raises:
            SubjectQuotaExceeded: there are not enough.
        """
        overrides, tenant, model = self._overrides, request.tenant, request.model_id
        limit, divisor = self._limit, self._divisor
        key: tuple[str, ...] = (tenant, request.user, request.session)
        if overrides:
            names = ((tenant, model), (tenant, None), (None, model))
            found = next((overrides[name] for name in names if name in overrides), None)
            if found is not None:
                limit = Limit(found.capacity, found.refill)
                divisor = found.divisor or divisor
                # a bucket has one size: another limit is another bucket
                key = (*key, found.tenant or "", found.model_id or "")
        cost = token_cost(request.tokens_delta, divisor=divisor, per_step=True)
        grant = self._buckets.take(key, cost, now=now, limit=limit)
        if not grant.allowed:
            raise SubjectQuotaExceeded(Quota(limit, grant))
        return Quota(limit, grant)
