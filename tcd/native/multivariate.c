/* The multivariate monitor's step for a batch; tcd/multivariate/step.py says what it is. */
#include "calls.h"

/* Quantised distance of the newest of `rows` vectors, or of their moving average; `made` has room for 2 vectors. */
INLINE double distance_of(const struct reference *asset, const float *x, int64_t rows, int64_t d, double *made) {
    double *centred = made, *y = made + d, sum = 0.0;
    memset(made, 0, 2 * (size_t)d * sizeof *made);
    if (asset->weights) {
        for (int64_t t = 0; t < rows; t++) {
            double weight = asset->weights[TAIL - rows + t];
            for (int64_t c = 0; c < d; c++)
                centred[c] = centred[c] + ((double)x[t * d + c] - asset->mean[c]) * weight;
        }
    } else {
        for (int64_t c = 0; c < d; c++) centred[c] = (double)x[(rows - 1) * d + c] - asset->mean[c];
    }
    for (int64_t i = 0; i < d; i++) {
        const double *row = asset->white + i * d;
        for (int64_t j = i; j < d; j++) y[j] = y[j] + centred[i] * row[j];
    }
    for (int64_t j = 0; j < d; j++) sum = sum + y[j] * y[j];
    return quantise(sqrt(sum));
}

/* The same for the 16 columns of tcd's own features, in registers. What is below the diagonal is zero, and adds none. */
INLINE double distance_of_16(const struct reference *asset, const float *x, int64_t rows) {
    enum { D = 16 };
    double centred[D] = {0}, y[D] = {0}, mean[D], sum = 0.0;
    memcpy(mean, asset->mean, sizeof mean);
    if (asset->weights) {
        for (int64_t t = 0; t < rows; t++) {
            double weight = asset->weights[TAIL - rows + t];
            for (int c = 0; c < D; c++) centred[c] = centred[c] + ((double)x[t * D + c] - mean[c]) * weight;
        }
    } else {
        for (int c = 0; c < D; c++) centred[c] = (double)x[(rows - 1) * D + c] - mean[c];
    }
    for (int i = 0; i < D; i++) {
        const double *row = asset->white + i * D;
        for (int j = i / 8 * 8; j < D; j++) y[j] = y[j] + centred[i] * row[j];
    }
    for (int j = 0; j < D; j++) sum = sum + y[j] * y[j];
    return quantise(sqrt(sum));
}

INLINE void answer_row(const struct multivariate_call *call, int64_t i, double *made) {
    const int32_t *lengths = call->lengths + i * call->lengths_stride;
    const struct reference *asset = call->assets[i * call->step];
    const float *x = call->features.data + i * call->features.stride;
    double before = call->sup[i * call->sup_stride], distance = 0.0, threshold = 0.0, p = 1.0, session = 1.0;
    int fits = features_fit(lengths[3], lengths[4], call->features.width), trigger = 0;
    int64_t rows = fits ? lengths[3] : 0, cols = fits ? lengths[4] : 0;
    int32_t status = fits && finite64(before) ? 0 : BAD_INPUT;
    uint32_t highest = 0, bits;
    for (int64_t v = 0; v < rows * cols; v++) {
        memcpy(&bits, x + v, sizeof bits);
        bits &= 0x7fffffffu;
        highest = bits > highest ? bits : highest;
    }
    if (highest >= 0x7f800000u) status |= NONFINITE;
    if (fits && rows == 0) status |= ABSENT;
    call->sup_out[i] = clean_sup(before);
    call->asset[i] = 0;
    if (!asset) {
        status |= NO_CALIBRATION;
    } else {
        if (call->fallback[i * call->step]) status |= FALLBACK;
        if (rows > 0 && cols != asset->features) {
            status |= UNKNOWN_MASK;
            call->asset[i] = asset->id;
        }
    }
    if (!(status & VOID)) {
        call->asset[i] = asset->id;
        if (rows < least(BLOCK, MAX_FEATURE_VALUES / asset->features)) {
            status |= WARMUP;
        } else {
            distance = asset->features == 16 ? distance_of_16(asset, x, rows)
                                             : distance_of(asset, x, rows, asset->features, made);
            p = step_p(asset->steps, distance);
            call->sup_out[i] = call->sup_out[i] > distance ? call->sup_out[i] : distance;
            trigger = distance > asset->threshold;
        }
        threshold = asset->threshold;
        session = session_p(asset->sessions, asset->adjusted, call->sup_out[i]);
    }
    call->p[2 * i] = p;
    call->p[2 * i + 1] = session;
    call->mv[4 * i] = to_float(distance);
    call->mv[4 * i + 1] = to_float(threshold);
    call->mv[4 * i + 2] = (float)trigger;
    call->mv[4 * i + 3] = to_float(p);
    call->status[i] = status;
}

/* Answer a batch. */
EXPORT CLONES int tcd_multivariate(const struct multivariate_call *call) {
    double made[2 * MAX_FEATURE_COLS];
    for (int64_t i = 0; i < call->n; i++) answer_row(call, i, made);
    return 0;
}
