/* Values of a server's answer held to the contract; tcd/triton/bounds.py says to what. */
#include "kernel.h"

enum { FP32, FP64, INT32 };

/* Bounds of a column, both inclusive; `whole` = integers only. */
struct column {
    double low, high;
    int64_t whole;
};

/* `count` values from byte `start` on, row after row of `period` columns. */
struct answer {
    int64_t kind, start, count, period;
    const struct column *columns;
};

/* One answer: `count` tensors of it. */
struct answers_call {
    int64_t count;
    const struct answer *tensors;
};

static double value(const uint8_t *body, int64_t kind, int64_t i) {
    /* a body begins behind a header of any length: nothing in it is aligned */
    if (kind == FP32) {
        float x;
        memcpy(&x, body + 4 * i, sizeof x);
        return x;
    }
    if (kind == FP64) {
        double x;
        memcpy(&x, body + 8 * i, sizeof x);
        return x;
    }
    int32_t x;
    memcpy(&x, body + 4 * i, sizeof x);
    return x;
}

/* 0, or the number (from 1) of the first tensor with a value out of its bounds; NaN is within none. */
EXPORT int tcd_answers(const struct answers_call *call, const uint8_t *body) {
    for (int64_t t = 0; t < call->count; t++) {
        const struct answer *tensor = &call->tensors[t];
        int64_t column = 0;
        for (int64_t i = 0; i < tensor->count; i++) {
            const struct column *bounds = &tensor->columns[column];
            double x = value(body + tensor->start, tensor->kind, i);
            if (!(bounds->low <= x && x <= bounds->high) || (bounds->whole && x != floor(x))) return (int)t + 1;
            column = column + 1 == tensor->period ? 0 : column + 1;
        }
    }
    return 0;
}
