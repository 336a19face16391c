/* The routing step for a batch: p-values, level and policy to trigger, verdict, tier and route.
 * tcd/routing/step.py says what it is. */
#include "calls.h"

enum { CONTROLLER = 1, FLAGS = 7, CAUTIOUS = 1, STRICT = 2, UNKNOWN_POLICY = NO_CALIBRATION };

INLINE double merge(double detector, double multivariate, double weight) {
    double p = 1.0;
    if (weight > 0.0) {
        double share = detector / weight;
        p = share < p ? share : p;
    }
    if (weight < 1.0) {
        double share = multivariate / (1.0 - weight);
        p = share < p ? share : p;
    }
    return p;
}

/* A running maximum between the start and its negative; NaN counts as the start. */
INLINE double finite_sup(double value) {
    value = value >= -1e300 ? value : -1e300;
    return (value < 1e300 ? value : 1e300) + 0.0;
}

INLINE void route_row(const struct rule *rule, double *out) {
    out[2] = out[2] > 0.0 ? out[2] : 0.0;
    if (rule->has_temperature) {
        out[0] = out[0] > rule->temperature[0] ? out[0] : rule->temperature[0];
        out[0] = out[0] < rule->temperature[1] ? out[0] : rule->temperature[1];
    }
    if (rule->has_top_p) out[1] = out[1] < rule->top_p ? out[1] : rule->top_p;
    /* 0 from the caller means that it named no limit */
    if (rule->has_max_tokens)
        out[2] = out[2] > 0.0 && out[2] < rule->max_tokens ? out[2] : rule->max_tokens;
    out[3] = rule->decoder;
}

INLINE void answer_row(const struct routing_call *call, int64_t i) {
    static const double safe[4] = {1.0, 1.0, 0.0, 0.0};
    const struct policy *policy = call->policies[i * call->step];
    /* step and hypothesis of the detector, then of the multivariate monitor */
    double p[4] = {call->detector_p[2 * i], call->detector_p[2 * i + 1], call->multivariate_p[2 * i],
                   call->multivariate_p[2 * i + 1]};
    double alpha = call->alpha[i], base[4];
    int32_t flags = call->lengths[6 * i + 5], detector = call->detector_status[i] & 0xff,
            multivariate = call->multivariate_status[i] & 0xff, status = 0;
    int controller = flags & CONTROLLER, wrong = (flags & ~FLAGS) != 0;
    for (int k = 0; k < 4; k++) {
        if (!(p[k] >= 0.0 && p[k] <= 1.0)) {
            p[k] = 1.0;
            wrong = 1;
        }
        base[k] = (double)call->base[4 * i + k];
        if (!finite64(base[k])) {
            base[k] = safe[k];
            wrong = 1;
        }
    }
    if (controller && !(alpha >= 0.0 && alpha <= 1.0)) {
        controller = 0;
        wrong = 1;
    }
    if (wrong) status |= BAD_INPUT;
    if (!call->known[i * call->step]) status |= UNKNOWN_POLICY;
    double step = merge(p[0], p[2], policy->weight), session = merge(p[1], p[3], policy->weight);
    int trigger = controller && session <= alpha, alarm = step <= call->detector_level[i];
    int cautious = alarm || base[3] >= policy->drift || ((detector | multivariate | status) & policy->failed) != 0;
    int tier = trigger ? STRICT : cautious;
    route_row(&policy->tiers[tier], base);
    call->score[i] = (float)(1.0 - step);
    call->p_step[2 * i] = p[0];
    call->p_step[2 * i + 1] = p[2];
    call->sup_out[2 * i] = finite_sup(call->detector_sup[i]);
    call->sup_out[2 * i + 1] = finite_sup(call->multivariate_sup[i]);
    call->p_value[i] = session;
    call->trigger[i] = trigger;
    call->verdict[i] = trigger || alarm;
    call->tier[i] = tier;
    call->status[i] = detector | (multivariate << 8) | (status << 16);
    for (int k = 0; k < 4; k++) call->route[4 * i + k] = to_float(base[k]);
    call->assets[3 * i] = call->detector_asset[i];
    call->assets[3 * i + 1] = call->multivariate_asset[i];
    call->assets[3 * i + 2] = policy->id;
}

/* Answer a batch. */
EXPORT int tcd_route(const struct routing_call *call) {
    for (int64_t i = 0; i < call->n; i++) answer_row(call, i);
    return 0;
}
