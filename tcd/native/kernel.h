/* Shared by the kernels: layout of a batch, counts, and arithmetic whose bits no CPU or compiler option changes.
 *
 * Rules: only + - * / sqrt and comparisons on IEEE numbers, no fused multiply-add (-ffp-contract=off), sums in the
 * order that is written here. tcd/exact.py and its users do the same operations in the same order with numpy.
 */
#ifndef TCD_KERNEL_H
#define TCD_KERNEL_H

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD != 0
#error "this machine computes with more digits than it stores"
#endif

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#define EXPORT __attribute__((visibility("default")))
#else
#error "the kernels need GCC or Clang"
#endif

/* One library for every x86-64: the widest vectors that the CPU has, the same operations in each. `arch=` is matched by
 * the maker's name too, so the clone of Intel's is chosen on Intel alone and avx512f on the others. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GLIBC__) && !defined(TCD_ONE_TARGET)
#define CLONES __attribute__((target_clones("default", "avx2", "avx512f", "arch=skylake-avx512")))
#else
#define CLONES
#endif

#define TAIL 112   /* newest block and one longest period before it */
#define BLOCK 16   /* newest block */
#define MAX_LAG 96 /* longest period */
#define MAX_WINDOW 4096
#define MAX_FEATURE_ROWS 112
#define MAX_FEATURE_COLS 2048
#define MAX_FEATURE_VALUES 16384
#define SPECTRUM_RANK 16
#define AGES 10
#define STATISTICS 54

/* tcd.contract.Status */
enum { WARMUP = 1, NO_CALIBRATION = 2, FALLBACK = 4, NONFINITE = 8, BAD_INPUT = 16, UNKNOWN_MASK = 32, ABSENT = 64 };
/* Statuses after which a step has no evidence at all, not even that of earlier steps. */
#define VOID (NO_CALIBRATION | NONFINITE | BAD_INPUT | UNKNOWN_MASK | ABSENT)

typedef double v4d __attribute__((vector_size(32), aligned(8), may_alias));
typedef float v8f __attribute__((vector_size(32), aligned(4), may_alias));

/* One ragged tensor of a batch: row i starts at data + i * stride (in values) and holds `width` values. */
struct tensor {
    const float *data;
    int64_t stride;
    int64_t width;
};

/* The windows of a batch of n rows. */
struct windows {
    int64_t n;
    struct tensor trace, entropy, spectrum, features;
};

/* Valid counts of one row, inside its tensors. */
struct counts {
    int64_t trace, entropy, spectrum, rows, cols;
};

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

INLINE double bits_to_double(uint64_t bits) {
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

INLINE uint64_t double_to_bits(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

INLINE int finite64(double value) {
    return (double_to_bits(value) & 0x7ff0000000000000u) != 0x7ff0000000000000u;
}

/* exp(x) for -700 <= x <= 0, what is below counting as -700; fdlibm's e_exp.c, under one unit in the last place. */
INLINE double exp_of(double x) {
    const double shift = 6755399441055744.0; /* 1.5 * 2^52: adding it rounds to an integer */
    x = x < -700.0 ? -700.0 : x;
    double shifted = x * 1.44269504088896338700e+00 + shift;
    double k = shifted - shift;
    double hi = x - k * 6.93147180369123816490e-01;
    double lo = k * 1.90821492927058770002e-10;
    double r = hi - lo;
    double t = r * r;
    double c = r - t * (1.66666666666666019037e-01 +
                        t * (-2.77777777770155933842e-03 +
                             t * (6.61375632143793436117e-05 +
                                  t * (-1.65339022054652515390e-06 + t * 4.13813679705723846039e-08))));
    double y = 1.0 - ((lo - (r * c) / (2.0 - c)) - hi);
    return y * bits_to_double((double_to_bits(shifted) + 1023u) << 52);
}

/* log(x) for normal x > 0; fdlibm's e_log.c, under one unit in the last place. */
INLINE double log_of(double x) {
    uint64_t bits = double_to_bits(x);
    /* the exponent as a number, without a conversion from 64-bit integers */
    double e = bits_to_double((bits >> 52) | 0x4330000000000000u) - (4503599627370496.0 + 1023.0);
    double m = bits_to_double((bits & 0x000fffffffffffffu) | 0x3ff0000000000000u);
    int above = m > 1.41421356237309514547;
    m = above ? m * 0.5 : m;
    e = above ? e + 1.0 : e;
    double f = m - 1.0;
    double s = f / (2.0 + f);
    double z = s * s;
    double w = z * z;
    double odd = w * (3.999999999940941908e-01 + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01));
    double even = z * (6.666666666666735130e-01 +
                       w * (2.857142874366239149e-01 +
                            w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01)));
    double half = 0.5 * f * f;
    return e * 6.93147180369123816490e-01 -
           ((half - (s * (half + (even + odd)) + e * 1.90821492927058770002e-10)) - f);
}

INLINE float tree16f(const float *v) {
    float a[8];
    for (int l = 0; l < 8; l++) a[l] = v[l] + v[l + 8];
    for (int l = 0; l < 4; l++) a[l] = a[l] + a[l + 4];
    return (a[0] + a[2]) + (a[1] + a[3]);
}

INLINE double tree16(const double *v) {
    double a[8];
    for (int l = 0; l < 8; l++) a[l] = v[l] + v[l + 8];
    for (int l = 0; l < 4; l++) a[l] = a[l] + a[l + 4];
    return (a[0] + a[2]) + (a[1] + a[3]);
}

/* The nearest FP32, clamped to its range. */
INLINE float to_float(double value) {
    value = value > -3.4028234663852886e+38 ? value : -3.4028234663852886e+38;
    return (float)(value < 3.4028234663852886e+38 ? value : 3.4028234663852886e+38);
}

/* A statistic in fixed point: multiples of 2^-20 in +-1e12, no negative zero. */
INLINE double quantise(double value) {
    value = value < 1e12 ? value : 1e12;
    value = value > -1e12 ? value : -1e12;
    return rint(value * 1048576.0) * (1.0 / 1048576.0) + 0.0;
}

/* A running maximum made finite: NaN and anything below the start count as the start. */
INLINE double clean_sup(double value) {
    value = value >= -1e300 ? value : -1e300;
    return (value < 1e12 ? value : 1e12) + 0.0;
}

/* How many of n ascending values are under `value`. */
INLINE int64_t rank_of(const double *table, int64_t n, double value) {
    const double *base = table;
    while (n > 1) {
        int64_t half = n / 2;
        base += base[half - 1] < value ? half : 0;
        n -= half;
    }
    return n == 0 ? 0 : (base - table) + (base[0] < value);
}

/* Tables of a hypothesis: adjusted has sessions + 1 values, or is NULL for marginal p-values. */
struct table {
    const double *values;
    int64_t n;
};

INLINE double step_p(struct table table, double value) {
    return ((double)(table.n + 1) - (double)rank_of(table.values, table.n, value)) / (double)(table.n + 1);
}

INLINE double session_p(struct table table, const double *adjusted, double value) {
    return adjusted ? adjusted[table.n - rank_of(table.values, table.n, value)] : step_p(table, value);
}

/* Whether (rows, cols) of FEATURES fit the contract and a tensor of this width. */
INLINE int features_fit(int64_t rows, int64_t cols, int64_t width) {
    if (rows == 0) return cols >= 0;
    return rows > 0 && cols > 0 && rows <= MAX_FEATURE_ROWS && cols <= MAX_FEATURE_COLS &&
           rows * cols <= least(width, MAX_FEATURE_VALUES);
}

/* Counts of LENGTHS against the widths of the tensors; 0 and no counts where they do not fit. */
INLINE int read_counts(const int32_t *lengths, const struct windows *w, struct counts *c) {
    int fits = 0 <= lengths[0] && lengths[0] <= least(w->trace.width, MAX_WINDOW) && 0 <= lengths[1] &&
               lengths[1] <= least(w->entropy.width, MAX_WINDOW) && 0 <= lengths[2] &&
               lengths[2] <= least(w->spectrum.width, MAX_WINDOW) &&
               features_fit(lengths[3], lengths[4], w->features.width);
    memset(c, 0, sizeof *c);
    if (!fits) return 0;
    c->trace = lengths[0];
    c->entropy = lengths[1];
    c->spectrum = lengths[2];
    c->rows = lengths[3];
    c->cols = lengths[3] > 0 ? lengths[4] : 0;
    return 1;
}

#endif
