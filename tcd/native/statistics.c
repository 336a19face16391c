/* The detector's raw statistics, row by row: tcd/detector/{levels,recurrence,hidden}.py say what they are. */
#include "statistics.h"

#ifndef TCD_DIGEST
#define TCD_DIGEST "unknown"
#endif

/* What the library was made of, see tcd/native/build.py. */
EXPORT const char *tcd_digest(void);
EXPORT const char *tcd_digest(void) { return TCD_DIGEST; }

#define AS_TEXT(name) #name " "

/* Names of the statistics in their order, separated by blanks. */
EXPORT const char *tcd_names(void) { return NAMES(AS_TEXT); }

/* The smallest and the largest of numbers that are not negative: their bits order as integers do. */
INLINE float smallest(const float *values, int64_t n) {
    int32_t lowest = 0x7f800000, bits;
    float answer;
    for (int64_t i = 0; i < n; i++) {
        memcpy(&bits, values + i, sizeof bits);
        lowest = bits < lowest ? bits : lowest;
    }
    memcpy(&answer, &lowest, sizeof answer);
    return answer;
}

INLINE float largest(const float *values, int64_t n) {
    int32_t highest = 0, bits;
    float answer;
    for (int64_t i = 0; i < n; i++) {
        memcpy(&bits, values + i, sizeof bits);
        highest = bits > highest ? bits : highest;
    }
    memcpy(&answer, &highest, sizeof answer);
    return answer;
}

/* ---- recurrence (tcd/detector/recurrence.py) ---- */

struct recurrence {
    float share[2][MAX_LAG]; /* distances over their mean, 0 at unknown lags */
    float mean;
};

/* Mean over the known lags of 96 distances, 0 at the others. */
INLINE float mean_of(const float *distance, float reciprocal) {
    float lanes[16];
    for (int l = 0; l < 16; l++) lanes[l] = 0.0f;
    for (int k = 0; k < MAX_LAG; k += 16)
        for (int l = 0; l < 16; l++) lanes[l] = lanes[l] + distance[k + l];
    return tree16f(lanes) * reciprocal;
}

/* 1 - min/mean over the lags from column `first` on. */
INLINE float joined(const float *distance, int64_t first, float mean) {
    float lowest = smallest(distance + first, MAX_LAG - first);
    return 1.0f - lowest / (mean > 1e-9f ? mean : 1e-9f);
}

/* Reciprocal of the number of known lags of a window with `count` values. */
INLINE float reciprocal_of(int64_t count) {
    return (float)(1.0 / (double)least(most(count - BLOCK, 1), MAX_LAG));
}

/* First column (lag MAX_LAG - column) that a window of `count` values is long enough for. */
INLINE int64_t first_lag(int64_t count) { return TAIL - least(count, TAIL); }

/* Shares and ratios of distances over the newest 8 (`half`) and the 8 before them (`rest`). */
INLINE void finish(struct recurrence *r, const float *rest, const float *half, int64_t count, float ratio[2]) {
    int64_t first = first_lag(count);
    for (int64_t k = 0; k < MAX_LAG; k++) {
        r->share[0][k] = k < first ? 0.0f : rest[k] + half[k];
        r->share[1][k] = k < first ? 0.0f : half[k];
    }
    for (int b = 0; b < 2; b++) {
        float mean = mean_of(r->share[b], reciprocal_of(count));
        if (b == 0) r->mean = mean;
        ratio[b] = joined(r->share[b], first, mean);
        float divisor = mean > 1e-9f ? mean : 1e-9f;
        /* 0 before the first known lag stays 0 */
        for (int64_t k = first / 16 * 16; k < MAX_LAG; k++) r->share[b][k] = r->share[b][k] / divisor;
    }
}

typedef int32_t v8i __attribute__((vector_size(32)));

INLINE v8f magnitude(v8f x) { return (v8f)((v8i)x & 0x7fffffff); }

/* Distances at columns from `first` on; finish makes nothing of those before. */
INLINE void scalar_distances(const float *tail, int64_t first, float *rest, float *half) {
    memset(rest, 0, MAX_LAG * sizeof *rest);
    memset(half, 0, MAX_LAG * sizeof *half);
    for (int64_t k = first / 16 * 16; k < MAX_LAG; k += 16) {
        v8f sums[4] = {{0}};
        for (int i = 0; i < BLOCK / 2; i++) {
            const float *older = tail + i + k, *newer = older + BLOCK / 2;
            sums[0] = sums[0] + magnitude(tail[MAX_LAG + i] - *(const v8f *)older);
            sums[1] = sums[1] + magnitude(tail[MAX_LAG + i] - *(const v8f *)(older + 8));
            sums[2] = sums[2] + magnitude(tail[MAX_LAG + BLOCK / 2 + i] - *(const v8f *)newer);
            sums[3] = sums[3] + magnitude(tail[MAX_LAG + BLOCK / 2 + i] - *(const v8f *)(newer + 8));
        }
        memcpy(rest + k, sums, 2 * sizeof *sums);
        memcpy(half + k, sums + 2, 2 * sizeof *sums);
    }
}

INLINE float scalar_recurrence(const float *tail, int64_t count, struct recurrence *r) {
    float rest[MAX_LAG], half[MAX_LAG], ratio[2], shrunk[TAIL];
    scalar_distances(tail, first_lag(count), rest, half);
    finish(r, rest, half, count, ratio);
    if (!finite64((double)r->mean)) { /* differences overflow */
        for (int t = 0; t < TAIL; t++) shrunk[t] = tail[t] * 0x1p-16f;
        scalar_distances(shrunk, first_lag(count), rest, half);
        finish(r, rest, half, count, ratio);
    }
    return ratio[0];
}

/* Columns of distances that are made together: six vectors of sums in registers. */
#define WIDE 48

INLINE void vector_distances(const float *table, int64_t cols, int64_t first, float *rest, float *half) {
    for (int k = 0; k < MAX_LAG; k++) rest[k] = half[k] = 0.0f;
    for (int64_t k = first < WIDE ? 0 : WIDE; k < MAX_LAG; k += WIDE) {
        for (int i = 0; i < BLOCK; i++) {
            v8f sum[WIDE / 8] = {{0}};
            for (int64_t c = 0; c < cols; c++) {
                const float *values = table + c * TAIL + i;
                float newest = values[MAX_LAG];
                for (int l = 0; l < WIDE / 8; l++) {
                    v8f gap = newest - *(const v8f *)(values + k + 8 * l);
                    sum[l] = sum[l] + gap * gap;
                }
            }
            float *into = (i < BLOCK / 2 ? rest : half) + k, gaps[WIDE];
            memcpy(gaps, sum, sizeof gaps);
            for (int l = 0; l < WIDE; l++) into[l] = into[l] + sqrtf(gaps[l]);
        }
    }
}

/* ---- levels (tcd/detector/levels.py) ---- */

enum { N4, N16, N32, N64, NALL, SIZES };
static const int64_t sizes[SIZES] = {4, 16, 32, 64, TAIL};

struct series {
    double sums[SIZES], means[SIZES];
    int64_t count;
};

/* Sums over the newest 4, 16, 32, 64 and all values of a right-aligned tail: four lanes, newest first. The zeros before
 * its `count` values are added once: adding more of them changes nothing. */
INLINE void newest_sums(const double *tail, int64_t count, double *sums) {
    v4d lanes = *(const v4d *)(tail + TAIL - 4);
    int64_t rows = most((least(count, TAIL) + 3) / 4, 1), row = 1;
    for (int b = 0; b < SIZES; b++) {
        for (int64_t end = least(rows, sizes[b] / 4); row < end; row++)
            lanes = lanes + *(const v4d *)(tail + TAIL - 4 * (row + 1));
        if (rows < sizes[b] / 4) lanes = lanes + 0.0;
        sums[b] = (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
    }
}

INLINE void make_series(struct series *s, const double *tail, int64_t count) {
    newest_sums(tail, count, s->sums);
    s->count = count;
    for (int b = 0; b < SIZES; b++) s->means[b] = s->sums[b] / (double)least(most(count, 1), sizes[b]);
}

/* Mean of a newest block minus that of the values before it, in units of its own error's growth. */
INLINE double shift_of(double mean, double past, int64_t length, int64_t block) {
    double m = (double)most(length, 1);
    double shift = (mean - past / m) / sqrt(1.0 + (double)block / m);
    return length >= BLOCK ? shift : 0.0;
}

INLINE double shift_all(const struct series *s, int at, double past) {
    return shift_of(s->means[at], past - (s->sums[at] - s->sums[N16]), s->count - sizes[at], sizes[at]);
}

INLINE double shift_tail(const struct series *s, int at) {
    return shift_of(s->means[at], s->sums[NALL] - s->sums[at], least(s->count, TAIL) - sizes[at], sizes[at]);
}

/* Sum of all but the newest 16 of `count` values: sixteen lanes, oldest first. */
INLINE double past_sum(const float *values, int64_t count) {
    double lanes[16];
    int64_t length = count - BLOCK, t = 0;
    for (int l = 0; l < 16; l++) lanes[l] = 0.0;
    for (; t + 16 <= length; t += 16)
        for (int l = 0; l < 16; l++) lanes[l] = lanes[l] + (double)values[t + l];
    for (int l = 0; t < length; t++, l++) lanes[l] = lanes[l] + (double)values[t];
    return tree16(lanes);
}

/* Newest values right-aligned, zeros before them. */
INLINE void align(const float *values, int64_t count, float *tail, double *wide) {
    int64_t held = least(count, TAIL);
    memset(tail, 0, TAIL * sizeof *tail);
    if (held) memcpy(tail + TAIL - held, values + count - held, (size_t)held * sizeof *tail);
    for (int t = 0; t < TAIL; t++) wide[t] = (double)tail[t];
}

/* First place of a tail that has to be worked out, a multiple of 16: the row has no value before it. */
INLINE int first_value(int64_t count) { return (int)(TAIL - least(count, TAIL)) / 16 * 16; }

/* Zeros where the row has no value. */
INLINE void inside(double *tail, int64_t count) {
    for (int64_t t = 0; t < TAIL - least(count, TAIL); t++) tail[t] = 0.0;
}

/* Mean of the four lowest of the newest 16. */
INLINE double lowest_mean(const double *tail) {
    double low[4] = {INFINITY, INFINITY, INFINITY, INFINITY};
    for (int t = TAIL - BLOCK; t < TAIL; t++) {
        double value = tail[t];
        for (int l = 0; l < 4; l++) {
            double smaller = value < low[l] ? value : low[l];
            value = value < low[l] ? low[l] : value;
            low[l] = smaller;
        }
    }
    return (((low[0] + low[1]) + low[2]) + low[3]) * 0.25;
}

INLINE int trace_statistics(const float *values, int64_t count, double *wide, double *out, struct recurrence *r) {
    float tail[TAIL];
    double made[TAIL];
    struct series s, likely;
    align(values, count, tail, wide);
    double past = past_sum(values, count);
    make_series(&s, wide, count);
    if (!finite64(past + s.sums[N16])) return 0;
    for (int t = first_value(count); t < TAIL; t++) made[t] = exp_of(wide[t] < 0.0 ? wide[t] : 0.0);
    inside(made, count);
    make_series(&likely, made, count);
    out[S_surprisal_4] = -s.means[N4];
    out[S_surprisal_16] = -s.means[N16];
    out[S_surprisal_32] = -s.means[N32];
    out[S_surprisal_64] = -s.means[N64];
    out[S_trace_low] = lowest_mean(wide);
    out[S_surprisal_self] = -shift_all(&s, N16, past);
    out[S_surprisal_self_32] = -shift_all(&s, N32, past);
    out[S_surprisal_self_64] = -shift_all(&s, N64, past);
    out[S_probability_16] = likely.means[N16];
    out[S_probability_32] = likely.means[N32];
    out[S_probability_self] = shift_tail(&likely, N32);
    if (count >= 2 * BLOCK) out[S_recurrence_trace] = (double)scalar_recurrence(tail, count, r);
    return 1;
}

/* Standard deviation of the newest 32 values, or of as many as there are. */
INLINE double deviation(const double *tail, double mean, int64_t count) {
    double made[TAIL], sums[SIZES];
    for (int t = TAIL - 2 * BLOCK; t < TAIL; t++) made[t] = (tail[t] - mean) * (tail[t] - mean);
    count = least(count, 2 * BLOCK);
    inside(made, count);
    newest_sums(made, count, sums);
    return sqrt(sums[N32] / (double)least(most(count, 1), 32));
}

INLINE int entropy_statistics(const float *values, int64_t count, double *wide, double *out, struct recurrence *r) {
    float tail[TAIL];
    double made[TAIL];
    struct series s, logs;
    align(values, count, tail, wide);
    double past = past_sum(values, count);
    make_series(&s, wide, count);
    if (!finite64(past + s.sums[N16])) return 0;
    for (int t = first_value(count); t < TAIL; t++) made[t] = log_of((wide[t] > 0.0 ? wide[t] : 0.0) + 0.05);
    inside(made, count);
    make_series(&logs, made, count);
    out[S_entropy_4] = s.means[N4];
    out[S_entropy_16] = s.means[N16];
    out[S_entropy_32] = s.means[N32];
    out[S_entropy_64] = s.means[N64];
    out[S_entropy_sd] = deviation(wide, s.means[N32], count);
    out[S_entropy_self] = shift_all(&s, N16, past);
    out[S_entropy_self_32] = shift_all(&s, N32, past);
    out[S_entropy_self_64] = shift_all(&s, N64, past);
    out[S_log_entropy_16] = logs.means[N16];
    out[S_log_entropy_32] = logs.means[N32];
    out[S_log_entropy_self] = shift_tail(&logs, N32);
    if (count >= 2 * BLOCK) out[S_recurrence_entropy] = (double)scalar_recurrence(tail, count, r);
    return 1;
}

INLINE void residual_statistics(const double *trace, const double *entropy, int64_t count, double *out) {
    double made[TAIL];
    struct series misfit;
    out[S_residual_4] = out[S_surprisal_4] - out[S_entropy_4];
    out[S_residual_16] = out[S_surprisal_16] - out[S_entropy_16];
    out[S_residual_32] = out[S_surprisal_32] - out[S_entropy_32];
    out[S_residual_64] = out[S_surprisal_64] - out[S_entropy_64];
    out[S_residual_self_32] = out[S_surprisal_self_32] - out[S_entropy_self_32];
    out[S_residual_self_64] = out[S_surprisal_self_64] - out[S_entropy_self_64];
    for (int t = 0; t < TAIL; t++) made[t] = fabs(trace[t] + entropy[t]);
    inside(made, count);
    make_series(&misfit, made, count);
    out[S_misfit_16] = misfit.means[N16];
    out[S_misfit_32] = misfit.means[N32];
    out[S_misfit_self] = shift_tail(&misfit, N32);
}

/* ---- hidden states (tcd/detector/hidden.py) ---- */

INLINE int spectrum_statistics(const float *values, int64_t count, double *out) {
    float top[SPECTRUM_RANK] = {0};
    double sigma[SPECTRUM_RANK], logs[SPECTRUM_RANK];
    int wrong = 0, filled = 0;
    for (int64_t i = 0; i < count; i++) {
        float value = values[i];
        wrong |= !(value >= 0.0f && value <= 3.402823466e+38f);
        if (!(value > top[SPECTRUM_RANK - 1])) continue;
        int at = filled < SPECTRUM_RANK ? filled++ : SPECTRUM_RANK - 1;
        for (; at > 0 && top[at - 1] < value; at--) top[at] = top[at - 1];
        top[at] = value;
    }
    if (wrong) return 0;
    for (int l = 0; l < SPECTRUM_RANK; l++) sigma[l] = (double)top[l];
    for (int l = 0; l < SPECTRUM_RANK; l++) logs[l] = log_of(sigma[l] + 1e-6);
    double total = tree16(sigma);
    total = total > 1e-6 ? total : 1e-6;
    out[S_log_sigma_1] = logs[0];
    out[S_log_sigma_16] = logs[SPECTRUM_RANK - 1];
    out[S_spread] = logs[0] - logs[SPECTRUM_RANK - 1];
    logs[0] = logs[SPECTRUM_RANK - 1] = 0.0;
    out[S_log_sigma_mean] = tree16(logs) / (double)(SPECTRUM_RANK - 2);
    for (int l = 0; l < SPECTRUM_RANK; l++) {
        sigma[l] = sigma[l] / total;
        sigma[l] = sigma[l] * log_of(sigma[l] + 1e-12);
    }
    out[S_spectral_entropy] = -tree16(sigma);
    return 1;
}

/* Distance of a newest block's mean from that of its past, in units of the past's spread. */
INLINE double vector_shift(const float *newest, const float *past, int64_t cols, float squares, float largest,
                           int64_t length, int64_t block) {
    double m = (double)most(length, 1), shifted = 0.0, middle = 0.0;
    float share = (float)(1.0 / (double)block);
    for (int64_t c = 0; c < cols; c++) {
        double mean = (double)past[c] / m;
        double away = newest ? (double)(newest[c] * share) - mean : mean;
        shifted = shifted + away * away;
        middle = middle + mean * mean;
    }
    double spread = (double)squares / m - middle;
    double floor = (double)(largest * 1e-9f);
    spread = spread > floor ? spread : floor;
    spread = spread > 1e-30 ? spread : 1e-30;
    double answer = sqrt(shifted / spread / (1.0 + (double)block / m));
    return length >= BLOCK ? answer : 0.0;
}

/* Participation ratio of the newest 32 vectors around their mean, by the Gram matrix of tokens. */
INLINE double participation(const float *table, int64_t cols, const float *recent) {
    enum { N = 2 * BLOCK };
    v8f gram[N][N / 8];
    double total = 0.0, lanes[3][16];
    memset(gram, 0, sizeof gram);
    memset(lanes, 0, sizeof lanes);
    for (int64_t c = 0; c < cols; c++) {
        float centred[N], mean = recent[c] * (0.5f / BLOCK);
        for (int t = 0; t < N; t++) centred[t] = table[c * TAIL + TAIL - N + t] - mean;
        const v8f *v = (const v8f *)centred;
        v8f v0 = v[0], v1 = v[1], v2 = v[2], v3 = v[3];
        for (int i = 0; i < BLOCK; i++) {
            float x = centred[i], y = centred[BLOCK + i];
            gram[i][0] = gram[i][0] + x * v0;
            gram[i][1] = gram[i][1] + x * v1;
            gram[i][2] = gram[i][2] + x * v2;
            gram[i][3] = gram[i][3] + x * v3;
            gram[BLOCK + i][2] = gram[BLOCK + i][2] + y * v2;
            gram[BLOCK + i][3] = gram[BLOCK + i][3] + y * v3;
        }
    }
    for (int i = 0; i < BLOCK; i++) {
        const float *upper = (const float *)gram[i], *lower = (const float *)gram[BLOCK + i] + BLOCK;
        for (int l = 0; l < 16; l++) {
            double a = (double)upper[l], b = (double)upper[16 + l], d = (double)lower[l];
            lanes[0][l] = lanes[0][l] + a * a;
            lanes[1][l] = lanes[1][l] + b * b;
            lanes[2][l] = lanes[2][l] + d * d;
        }
    }
    for (int i = 0; i < N; i++) total = total + (double)((const float *)gram[i])[i];
    double power = (tree16(lanes[0]) + 2.0 * tree16(lanes[1])) + tree16(lanes[2]);
    return total * total / (power > 1e-30 ? power : 1e-30);
}

/* The window scaled by a power of two where its squares would be far from the ends of FP32; NULL without memory. */
INLINE const float *scale_window(const float *x, int64_t values, int32_t highest, struct work *work) {
    float top;
    int exponent;
    memcpy(&top, &highest, sizeof top);
    if (top >= 0.25f && top <= 16777216.0f) return x;
    if (!work->scaled) work->scaled = malloc(MAX_FEATURE_VALUES * sizeof *work->scaled);
    if (!work->scaled) return NULL;
    frexpf(top, &exponent);
    double factor = ldexp(1.0, -exponent);
    for (int64_t v = 0; v < values; v++) work->scaled[v] = (float)((double)x[v] * factor);
    return work->scaled;
}

/* Shift, rank and recurrence of a window of at least 32 vectors. */
INLINE void window_statistics(const float *x, int64_t rows, int64_t cols, struct work *work, double *out,
                              struct recurrence *r) {
    float *table = work->table, *centre = work->centre, *blocks = work->blocks;
    int64_t missing = TAIL - rows;
    memset(centre, 0, (size_t)cols * sizeof *centre);
    memset(blocks, 0, (size_t)(cols * (TAIL / BLOCK)) * sizeof *blocks);
    for (int64_t t = rows - BLOCK; t < rows; t++)
        for (int64_t c = 0; c < cols; c++) centre[c] = centre[c] + x[t * cols + c];
    for (int64_t c = 0; c < cols; c++) centre[c] = centre[c] * (1.0f / BLOCK);
    for (int64_t t = 0; t < rows; t++) {
        float *sum = blocks + (missing + t) / BLOCK * cols;
        for (int64_t c = 0; c < cols; c++) sum[c] = sum[c] + (x[t * cols + c] - centre[c]);
    }
    for (int64_t c = 0; c < cols; c++) {
        float *into = table + c * TAIL;
        for (int64_t t = 0; t < missing; t++) into[t] = 0.0f;
        for (int64_t t = 0; t < rows; t++) into[missing + t] = x[t * cols + c] - centre[c];
    }
    float squares[TAIL], lanes[16], before, past, largest_before, largest_past;
    for (int t = 0; t < TAIL; t++) squares[t] = 0.0f;
    for (int64_t c = 0; c < cols; c++)
        for (int t = 0; t < TAIL; t++) squares[t] = squares[t] + table[c * TAIL + t] * table[c * TAIL + t];
    for (int l = 0; l < 16; l++) lanes[l] = squares[l];
    for (int b = 1; b < 5; b++)
        for (int l = 0; l < 16; l++) lanes[l] = lanes[l] + squares[16 * b + l];
    before = tree16f(lanes);
    for (int l = 0; l < 16; l++) lanes[l] = lanes[l] + squares[80 + l];
    past = tree16f(lanes);
    largest_before = largest(squares, MAX_LAG - BLOCK);
    largest_past = largest(squares, MAX_LAG);
    /* sums of the vectors before the newest 32, before the newest 16, and of the newest 32, over those of the blocks */
    float *older = blocks, *old = blocks + cols, *recent = blocks + 2 * cols;
    for (int64_t c = 0; c < cols; c++) {
        const float *b = blocks + c;
        float sum = (((b[0] + b[cols]) + b[2 * cols]) + b[3 * cols]) + b[4 * cols];
        float whole = sum + b[5 * cols], newest = b[5 * cols] + b[6 * cols];
        older[c] = sum;
        old[c] = whole;
        recent[c] = newest;
    }
    out[S_feature_self] = vector_shift(NULL, old, cols, past, largest_past, rows - BLOCK, BLOCK);
    out[S_feature_self_32] = vector_shift(recent, older, cols, before, largest_before, rows - 2 * BLOCK, 2 * BLOCK);
    out[S_feature_rank] = participation(table, cols, recent);
    float rest[MAX_LAG], half[MAX_LAG], ratio[2];
    vector_distances(table, cols, first_lag(rows), rest, half);
    finish(r, rest, half, rows, ratio);
    out[S_recurrence_features] = (double)ratio[0];
    out[S_recurrence_features_8] = (double)ratio[1];
}

INLINE int feature_statistics(const float *x, int64_t rows, int64_t cols, struct work *work, double *out,
                              struct recurrence *r) {
    /* the magnitude's bits order as integers, a NaN or infinity above every number */
    int32_t highest = 0, bits;
    for (int64_t v = 0; v < rows * cols; v++) {
        memcpy(&bits, x + v, sizeof bits);
        bits &= 0x7fffffff;
        highest = bits > highest ? bits : highest;
    }
    if (highest >= 0x7f800000) return 0;
    double norms[BLOCK] = {0};
    if (rows >= BLOCK) {
        /* eight sums beside one another: each is added up in its own order */
        for (int t = 0; t < BLOCK; t += 8) {
            const float *vector = x + (rows - BLOCK + t) * cols;
            double sums[8] = {0};
            for (int64_t c = 0; c < cols; c++)
                for (int l = 0; l < 8; l++) {
                    double value = (double)vector[l * cols + c];
                    sums[l] = sums[l] + value * value;
                }
            memcpy(norms + t, sums, sizeof sums);
        }
    } else {
        for (int64_t t = BLOCK - rows; t < BLOCK; t++) {
            const float *vector = x + (rows - BLOCK + t) * cols;
            for (int64_t c = 0; c < cols; c++) norms[t] = norms[t] + (double)vector[c] * (double)vector[c];
        }
    }
    for (int t = 0; t < BLOCK; t++) norms[t] = sqrt(norms[t]);
    out[S_feature_norm] = log_of(tree16(norms) * (1.0 / BLOCK) + 1e-6);
    if (rows < 2 * BLOCK) return 1;
    x = scale_window(x, rows * cols, highest, work);
    if (!x) return -1;
    window_statistics(x, rows, cols, work, out, r);
    return 1;
}

/* Levels of the last column: with tcd's own features the log of the nucleus size (tcd/detector/nucleus.py). */
INLINE void nucleus_statistics(const float *x, int64_t rows, int64_t cols, double *out) {
    double tail[TAIL];
    struct series s;
    for (int64_t t = 0; t < TAIL - rows; t++) tail[t] = 0.0;
    for (int64_t t = 0; t < rows; t++) tail[TAIL - rows + t] = (double)x[t * cols + cols - 1];
    make_series(&s, tail, rows);
    out[S_nucleus_4] = s.means[N4];
    out[S_nucleus_16] = s.means[N16];
    out[S_nucleus_32] = s.means[N32];
    out[S_nucleus_64] = s.means[N64];
    out[S_nucleus_self] = shift_tail(&s, N16);
    out[S_nucleus_self_32] = shift_tail(&s, N32);
    out[S_nucleus_self_64] = shift_tail(&s, N64);
}

/* Recurrence of several signals at one lag: what repeats in all of them is a loop, not a coincidence. */
INLINE void joint_statistics(const struct counts *c, struct recurrence *features, const struct recurrence *entropy,
                             const struct recurrence *trace, double *out) {
    int64_t count = least(c->rows, c->entropy);
    if (count < 2 * BLOCK) return;
    for (int b = 0; b < 2; b++)
        for (int k = 0; k < MAX_LAG; k++) features->share[b][k] = features->share[b][k] + entropy->share[b][k];
    for (int turn = 0; turn < 2; turn++) {
        if (turn) {
            count = least(count, c->trace);
            if (count < 2 * BLOCK) return;
            for (int b = 0; b < 2; b++)
                for (int k = 0; k < MAX_LAG; k++) features->share[b][k] = features->share[b][k] + trace->share[b][k];
        }
        for (int b = 0; b <= turn; b++) {
            float known[MAX_LAG];
            int64_t first = first_lag(count);
            for (int64_t k = 0; k < MAX_LAG; k++) known[k] = k < first ? 0.0f : features->share[b][k];
            out[turn == 0 ? S_recurrence_pair : b == 0 ? S_recurrence_joint : S_recurrence_joint_8] =
                (double)joined(known, first, mean_of(known, reciprocal_of(count)));
        }
    }
}

/* Statistics of a row whose counts fit; 1, 0 with all of them zero where a value is not a number that it may be. */
CLONES int tcd_row(const struct windows *w, int64_t row, const struct counts *c, struct work *work, double *out) {
    double trace[TAIL], entropy[TAIL];
    struct recurrence of_trace, of_entropy, of_features;
    int finite = 1;
    if (c->trace)
        finite = trace_statistics(w->trace.data + row * w->trace.stride, c->trace, trace, out, &of_trace);
    if (finite > 0 && c->entropy)
        finite = entropy_statistics(w->entropy.data + row * w->entropy.stride, c->entropy, entropy, out, &of_entropy);
    if (finite > 0 && c->trace && c->entropy)
        residual_statistics(trace, entropy, least(c->trace, c->entropy), out);
    if (finite > 0 && c->spectrum)
        finite = spectrum_statistics(w->spectrum.data + row * w->spectrum.stride, c->spectrum, out);
    if (finite > 0 && c->rows) {
        const float *x = w->features.data + row * w->features.stride;
        finite = feature_statistics(x, c->rows, c->cols, work, out, &of_features);
        if (finite > 0) nucleus_statistics(x, c->rows, c->cols, out);
    }
    if (finite > 0) joint_statistics(c, &of_features, &of_entropy, &of_trace, out);
    if (finite <= 0) memset(out, 0, STATISTICS * sizeof *out);
    return finite;
}

/* Statistics of a batch whose counts (n, 5) were validated: values (n, STATISTICS) and wrong (n). */
EXPORT int tcd_statistics(const struct windows *w, const int64_t *counts, double *values, uint8_t *wrong) {
    struct work work;
    if (!open_work(&work, w->n ? w->features.width : 0)) return -1;
    int failed = 0;
    for (int64_t i = 0; i < w->n && !failed; i++) {
        const int64_t *c = counts + 5 * i;
        struct counts row = {c[0], c[1], c[2], c[3], c[4]};
        double *out = values + i * STATISTICS;
        memset(out, 0, STATISTICS * sizeof *out);
        int finite = tcd_row(w, i, &row, &work, out);
        failed = finite < 0;
        wrong[i] = (uint8_t)(finite == 0);
    }
    close_work(&work);
    return failed ? -1 : 0;
}
