/* The detector's step for a batch: statistics, z-scores, heads, tables. tcd/detector/step.py says what it is. */
#include "calls.h"
#include "statistics.h"

enum { TRACE = 1, ENTROPY = 2, SPECTRUM = 4, FEATURES = 8 };
#define Z_LIMIT 6.0

INLINE int signal_mask(const struct counts *c) {
    return (c->trace > 0 ? TRACE : 0) | (c->entropy > 0 ? ENTROPY : 0) | (c->spectrum > 0 ? SPECTRUM : 0) |
           (c->rows > 0 ? FEATURES : 0);
}

/* The mask without the signals whose size an asset for `features` columns does not know. */
INLINE int known_signals(int64_t features, const struct counts *c, int present) {
    if (c->rows > 0 && c->cols != features) present &= ~FEATURES;
    if (c->spectrum > 0 && c->spectrum < SPECTRUM_RANK) present &= ~SPECTRUM;
    return present;
}

/* Whether some windowed signal of the mask has seen fewer tokens than a block. */
INLINE int is_cold(const struct counts *c, int mask) {
    int64_t room = least(MAX_FEATURE_VALUES / most(c->cols, 1), BLOCK); /* a window that holds fewer is warm when full */
    return ((mask & TRACE) && c->trace < BLOCK) || ((mask & ENTROPY) && c->entropy < BLOCK) ||
           ((mask & FEATURES) && c->rows < room);
}

INLINE void standardise(const struct detector *asset, const struct catalogue *catalogue, const struct counts *c,
                        const double *raw, double *z) {
    int64_t longest = most(most(c->trace, c->entropy), c->rows), age = 0;
    while (age < AGES && catalogue->ages[age] <= longest) age++;
    const double *location = asset->location + age * STATISTICS, *scale = asset->scale + age * STATISTICS;
    for (int f = 0; f < STATISTICS; f++) {
        const int64_t *needed = catalogue->needed[f];
        int valid = (c->trace >= needed[0]) & (c->entropy >= needed[1]) & (c->spectrum >= needed[2]) &
                    (c->rows >= needed[3]);
        double value = (raw[f] - location[f]) / scale[f];
        value = value > -Z_LIMIT ? value : -Z_LIMIT;
        value = value < Z_LIMIT ? value : Z_LIMIT;
        z[f] = valid ? value + 0.0 : 0.0;
    }
}

/* Logit (0) and the components' shares of it. */
INLINE void apply(const struct head *head, const struct catalogue *catalogue, const double *z, double *parts) {
    double shares[STATISTICS];
    for (int f = 0; f < STATISTICS; f++) shares[f] = (z[f] * head->quadratic[f] + head->linear[f]) * z[f];
    for (int i = 0; i < COMPONENTS; i++) {
        double sum = shares[catalogue->component[i]];
        for (int64_t f = catalogue->component[i] + 1; f < catalogue->component[i + 1]; f++) sum = sum + shares[f];
        parts[1 + i] = sum;
    }
    parts[0] = (((parts[1] + parts[2]) + parts[3]) + parts[4]) + head->intercept;
}

/* The statistic and the components' shares of it, quantised. */
INLINE void combine(const struct mask *mask, const struct catalogue *catalogue, const double *z, double *parts) {
    double other[1 + COMPONENTS];
    apply(&mask->heads[0], catalogue, z, parts);
    double total = parts[0];
    for (int64_t k = 1; k < mask->count; k++) {
        apply(&mask->heads[k], catalogue, z, other);
        double larger = other[0] > total ? other[0] : total;
        total = larger + log_of(1.0 + exp_of(-fabs(total - other[0])));
        if (other[0] > parts[0]) memcpy(parts, other, sizeof other);
    }
    parts[0] = total;
    for (int i = 0; i <= COMPONENTS; i++) parts[i] = quantise(parts[i]);
}

INLINE void score_row(const struct detector_call *call, int64_t i, const struct detector *asset,
                      const struct mask *mask, const struct counts *c, const double *raw) {
    const struct catalogue *catalogue = call->catalogue;
    double z[STATISTICS], parts[1 + COMPONENTS];
    float *out = call->components + i * COMPONENTS * 3;
    standardise(asset, catalogue, c, raw, z);
    combine(mask, catalogue, z, parts);
    double sup = call->sup_out[i] > parts[0] ? call->sup_out[i] : parts[0];
    call->sup_out[i] = sup;
    call->p[2 * i] = step_p(mask->steps, parts[0]);
    call->p[2 * i + 1] = session_p(mask->sessions, mask->adjusted, sup);
    for (int k = 0; k < COMPONENTS; k++) {
        double p = step_p(mask->components[k], parts[1 + k]);
        double highest = z[catalogue->headline[k][0]];
        for (int64_t f = catalogue->headline[k][0] + 1; f < catalogue->headline[k][1]; f++)
            highest = z[f] > highest ? z[f] : highest;
        out[3 * k] = (float)(1.0 - p);
        out[3 * k + 1] = (float)p;
        out[3 * k + 2] = (float)highest;
    }
}

INLINE void answer_row(const struct detector_call *call, int64_t i, const struct counts *c, int fits, int finite,
                       const double *raw) {
    const struct detector *asset = call->assets[i * call->step];
    double before = call->sup[i * call->sup_stride];
    int32_t status = 0;
    int present = signal_mask(c);
    float *components = call->components + i * COMPONENTS * 3;
    for (int k = 0; k < COMPONENTS; k++) {
        components[3 * k] = components[3 * k + 2] = 0.0f;
        components[3 * k + 1] = 1.0f;
    }
    call->p[2 * i] = call->p[2 * i + 1] = 1.0;
    call->sup_out[i] = clean_sup(before);
    call->level[i] = 0.0;
    call->asset[i] = 0;
    if (!fits || !finite64(before)) status |= BAD_INPUT;
    if (!finite) status |= NONFINITE;
    if (fits && !present) status |= ABSENT;
    if (!asset) status |= NO_CALIBRATION;
    if (asset && call->fallback[i * call->step]) status |= FALLBACK;
    if (!(status & VOID)) {
        int known = known_signals(asset->features, c, present);
        const struct mask *mask = asset->masks[known];
        call->asset[i] = asset->id;
        if (known != present) status |= FALLBACK;
        if (!mask) {
            status |= UNKNOWN_MASK;
        } else {
            call->level[i] = mask->level;
            if (is_cold(c, known)) {
                status |= WARMUP;
                call->p[2 * i + 1] = session_p(mask->sessions, mask->adjusted, call->sup_out[i]);
            } else {
                score_row(call, i, asset, mask, c, raw);
            }
        }
    }
    call->status[i] = status;
}

/* Answer a batch; -1 without memory. */
EXPORT CLONES int tcd_detector(const struct detector_call *call) {
    const struct windows *w = &call->windows;
    struct work work;
    if (!open_work(&work, w->features.width)) return -1;
    int failed = 0;
    for (int64_t i = 0; i < w->n && !failed; i++) {
        double raw[STATISTICS];
        struct counts c;
        memset(raw, 0, sizeof raw);
        int fits = read_counts(call->lengths + i * call->lengths_stride, w, &c);
        int finite = tcd_row(w, i, &c, &work, raw);
        failed = finite < 0;
        answer_row(call, i, &c, fits, finite, raw);
    }
    close_work(&work);
    return failed ? -1 : 0;
}
