/* Raw statistics of one row; the order is that of tcd/detector/catalogue.py, which the loader compares. */
#ifndef TCD_STATISTICS_H
#define TCD_STATISTICS_H

#include "kernel.h"

#define NAMES(X)                                                                                                  \
    X(surprisal_16) X(surprisal_4) X(surprisal_32) X(surprisal_64) X(trace_low) X(surprisal_self)                 \
    X(surprisal_self_32) X(surprisal_self_64) X(probability_16) X(probability_32) X(probability_self)             \
    X(residual_16) X(residual_4) X(residual_32) X(residual_64) X(residual_self_32) X(residual_self_64)            \
    X(misfit_16) X(misfit_32) X(misfit_self) X(entropy_16) X(entropy_4) X(entropy_32) X(entropy_64)               \
    X(entropy_sd) X(entropy_self) X(entropy_self_32) X(entropy_self_64) X(log_entropy_16) X(log_entropy_32)       \
    X(log_entropy_self) X(nucleus_4) X(nucleus_16) X(nucleus_32) X(nucleus_64) X(nucleus_self)                    \
    X(nucleus_self_32) X(nucleus_self_64) X(spread) X(log_sigma_1) X(log_sigma_16) X(log_sigma_mean)              \
    X(spectral_entropy) X(feature_norm) X(feature_self) X(feature_self_32) X(feature_rank)                        \
    X(recurrence_features) X(recurrence_features_8) X(recurrence_entropy) X(recurrence_trace) X(recurrence_pair)  \
    X(recurrence_joint) X(recurrence_joint_8)

#define AS_ENUM(name) S_##name,
enum statistic { NAMES(AS_ENUM) S_END };
_Static_assert(S_END == STATISTICS, "as many names as statistics");

/* Width up to which the tables of a feature window lie on the stack, and above which no window has 32 rows. */
#define STACK_COLS 32
#define TABLE_COLS (MAX_FEATURE_VALUES / (2 * BLOCK))

/* Work space of a thread: component-major features, their centre, sums of their blocks. */
struct work {
    float *table;  /* (cols, TAIL) */
    float *centre; /* (cols) */
    float *blocks; /* (TAIL / BLOCK, cols) */
    float *scaled; /* (rows, cols) of a window that is scaled, NULL before the first */
    float *memory; /* what is to be freed */
    float stack[STACK_COLS * (TAIL + 1 + TAIL / BLOCK)];
};

/* Raw statistics of a row, `out` zeroed before; answers 1 for finite content, 0 otherwise, -1 without memory. */
int tcd_row(const struct windows *w, int64_t row, const struct counts *c, struct work *work, double *out);

/* Work space for windows of `width` values in features; 0 without memory. */
INLINE int open_work(struct work *work, int64_t width) {
    int64_t cols = least(most(width / (2 * BLOCK), 1), TABLE_COLS);
    work->scaled = work->memory = NULL;
    float *place = work->stack;
    if (cols > STACK_COLS) place = work->memory = malloc((size_t)(cols * (TAIL + 1 + TAIL / BLOCK)) * sizeof *place);
    if (!place) return 0;
    work->table = place;
    work->centre = place + cols * TAIL;
    work->blocks = work->centre + cols;
    return 1;
}

INLINE void close_work(struct work *work) {
    free(work->scaled);
    free(work->memory);
}

#endif
