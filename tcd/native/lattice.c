/* Lattice points of witness segments; tcd/receipts/witness.py says what they are. */
#include "kernel.h"

#define STEPS 4294967295.0

/* One signal: n finite values, in any order of rows; `points` has room for n. */
struct signal {
    const float *data;
    int64_t n;
    uint32_t *points;
};

/* One call: `range` gets lowest and highest value of each signal. */
struct lattice_call {
    int64_t count;
    const struct signal *signals;
    double *range; /* (count, 2) */
};

CLONES static int quantised(const struct signal *signal, double *range) {
    const float *x = signal->data;
    int64_t n = signal->n;
    float low = x[0], high = x[0];
    int32_t strange = 0;
    for (int64_t i = 0; i < n; i++) {
        /* infinities and NaN give NaN */
        strange |= !(x[i] * 0.0f == 0.0f);
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    if (strange) return 1;
    double lo = low, hi = high, width = hi - lo;
    range[0] = lo;
    range[1] = hi;
    if (width == 0.0) {
        memset(signal->points, 0, (size_t)n * sizeof *signal->points);
        return 0;
    }
    for (int64_t i = 0; i < n; i++) {
        double point = rint(((double)x[i] - lo) * STEPS / width);
        point = point < 0.0 ? 0.0 : point;
        point = point > STEPS ? STEPS : point;
        signal->points[i] = (uint32_t)point;
    }
    return 0;
}

/* 0, or 1 when a value is not finite. */
EXPORT int tcd_lattice(const struct lattice_call *call) {
    for (int64_t i = 0; i < call->count; i++)
        if (quantised(&call->signals[i], call->range + 2 * i)) return 1;
    return 0;
}
