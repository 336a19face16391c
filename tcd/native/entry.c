/* From Python's arrays to the kernels in one call: what a model in Triton does between request and response.
 * tcd/triton/entry.py fills the structures.
 *
 * Of Python it needs three functions, whose addresses the caller gives, and Py_buffer, whose layout is part of the
 * stable ABI: so neither building nor loading the kernels needs anything of Python. The caller holds the GIL.
 */
#include "calls.h"

#include <sys/stat.h>

#define MOST_ROWS 256
#define SLOTS 1024 /* a power of two */
#define MOST_KNOWN 700
#define MOST_TAKEN 16
#define WITH_FORMAT_AND_STRIDES 0x1c /* PyBUF_FORMAT | PyBUF_STRIDES */

/* What a call answers. */
enum { DONE = 0, CHANGED = 1, UNSUITED = 2, UNKNOWN = 3 };
enum kind { F32, F64, I32, U64 };
/* What is looked up by key. */
enum { BY_DETECTOR, BY_MULTIVARIATE, BY_POLICY, LOOKUPS };

/* Py_buffer. */
struct view {
    void *data, *owner;
    intptr_t bytes, itemsize;
    int readonly, ndim;
    char *format;
    intptr_t *shape, *strides, *suboffsets;
    void *internal;
};

/* An asset or policy that is known for a key: flag 2 marks a slot in use, its lowest bit is the kernel's flag. */
struct slot {
    uint64_t key[3];
    const void *asset;
    int64_t flag;
};

struct lookup {
    struct slot *slots; /* (SLOTS) */
    int64_t used;
};

struct entry {
    void *(*member)(void *dict, void *name);               /* PyDict_GetItemWithError: borrowed */
    int (*open_view)(void *object, struct view *, int how); /* PyObject_GetBuffer */
    void (*close_view)(struct view *);                     /* PyBuffer_Release */
    void *const *names;                                    /* of the inputs, in the order of the contract */
    const char *manifest;
    int64_t stamp[3]; /* inode, nanoseconds, size of the manifest that the assets are from */
    const struct catalogue *catalogue;
    struct lookup lookups[LOOKUPS];
    uint64_t missing[3]; /* the key that was not known, and by what */
    int64_t missing_by;
    int64_t bits[8]; /* rows by status bit */
};

/* Inputs of a request while they are read. */
struct taken {
    struct view views[MOST_TAKEN];
    int used;
};

INLINE int manifest_changed(const struct entry *e) {
    struct stat now;
    int64_t stamp[3] = {-1, -1, -1};
    if (stat(e->manifest, &now) == 0) {
        stamp[0] = (int64_t)now.st_ino;
        stamp[1] = (int64_t)now.st_mtim.tv_sec * 1000000000 + now.st_mtim.tv_nsec;
        stamp[2] = (int64_t)now.st_size;
    }
    return memcmp(stamp, e->stamp, sizeof stamp) != 0;
}

static void give_back(struct entry *e, struct taken *taken) {
    while (taken->used) e->close_view(&taken->views[--taken->used]);
}

INLINE int is_kind(const struct view *view, enum kind kind) {
    const char *format = view->format;
    if (!format || !format[0] || format[1]) return 0;
    switch (kind) {
    case F32: return format[0] == 'f' && view->itemsize == 4;
    case F64: return format[0] == 'd' && view->itemsize == 8;
    case I32: return (format[0] == 'i' || format[0] == 'l') && view->itemsize == 4;
    default: return (format[0] == 'L' || format[0] == 'Q') && view->itemsize == 8;
    }
}

/* The next input as (n, width), width < 0 for any; NULL where it is not there or not laid out as the kernels read. */
static const struct view *take(struct entry *e, void *tensors, struct taken *taken, int name, enum kind kind, int64_t n,
                               int64_t width) {
    void *array = e->member(tensors, e->names[name]);
    struct view *view = &taken->views[taken->used];
    if (!array || e->open_view(array, view, WITH_FORMAT_AND_STRIDES)) return NULL;
    taken->used++;
    if (!is_kind(view, kind) || view->ndim != 2 || view->shape[0] != n || (intptr_t)view->data % view->itemsize)
        return NULL;
    if (view->shape[1] > 1 && view->strides[1] != view->itemsize) return NULL;
    if (width < 0) return view->strides[0] % view->itemsize ? NULL : view;
    if (view->shape[1] != width || (n > 1 && view->strides[0] != width * view->itemsize)) return NULL;
    return view;
}

INLINE struct tensor ragged(const struct view *view) {
    struct tensor tensor = {view->data, view->strides[0] / 4, view->shape[1]};
    return tensor;
}

INLINE struct slot *slot_of(const struct lookup *lookup, const uint64_t *key) {
    uint64_t at = (key[0] ^ key[1] ^ key[2]) * 0x9e3779b97f4a7c15u >> 54;
    for (;; at = (at + 1) % SLOTS) {
        struct slot *slot = lookup->slots + at;
        if (!slot->flag || memcmp(slot->key, key, sizeof slot->key) == 0) return slot;
    }
}

/* What answers the rows of a batch: one for all of them (step 0) or one for each (step 1). */
struct found {
    const void *assets[MOST_ROWS];
    uint8_t flags[MOST_ROWS];
    int64_t step;
};

/* Look up keys (n, words); 0 when one is not known. */
INLINE int look_up(struct entry *e, int by, const uint64_t *keys, int64_t n, int words, struct found *found) {
    const struct slot *slot = NULL;
    found->step = 0;
    for (int64_t i = 0; i < n; i++) {
        const uint64_t *key = keys + i * words;
        if (!i || memcmp(key, key - words, (size_t)words * sizeof *key) != 0) {
            uint64_t whole[3] = {0, 0, 0};
            if (i) found->step = 1;
            memcpy(whole, key, (size_t)words * sizeof *key);
            slot = slot_of(e->lookups + by, whole);
            if (!slot->flag) {
                memcpy(e->missing, whole, sizeof whole);
                e->missing_by = by;
                return 0;
            }
        }
        found->assets[i] = slot->asset;
        found->flags[i] = (uint8_t)(slot->flag & 1);
    }
    return 1;
}

INLINE void count_bits(struct entry *e, const int32_t *status, int64_t n, int shift) {
    int32_t any = 0;
    for (int64_t i = 0; i < n; i++) any |= status[i];
    if (any >> shift)
        for (int bit = 0; bit < 8; bit++)
            for (int64_t i = 0; i < n; i++) e->bits[bit] += status[i] >> (shift + bit) & 1;
}

/* Remember what answers a key; forgets all when too much is known. */
EXPORT void tcd_remember(struct entry *e, int64_t by, const uint64_t *key, const void *asset, int64_t flag);
EXPORT void tcd_remember(struct entry *e, int64_t by, const uint64_t *key, const void *asset, int64_t flag) {
    struct lookup *lookup = e->lookups + by;
    if (lookup->used >= MOST_KNOWN) {
        memset(lookup->slots, 0, SLOTS * sizeof *lookup->slots);
        lookup->used = 0;
    }
    struct slot *slot = slot_of(lookup, key);
    lookup->used += !slot->flag;
    memcpy(slot->key, key, sizeof slot->key);
    slot->asset = asset;
    slot->flag = 2 | (flag & 1);
}

/* Inputs of the windows, from input `first` on: four windows, LENGTHS, KEY, SUP. */
struct windowed {
    struct windows windows;
    const int32_t *lengths;
    const uint64_t *key;
    const double *sup;
};

static int take_windows(struct entry *e, void *tensors, struct taken *taken, int64_t n, const int names[7],
                        struct windowed *w) {
    const struct view *trace, *entropy, *spectrum, *features, *lengths, *key, *sup;
    if (!(trace = take(e, tensors, taken, names[0], F32, n, -1)) ||
        !(entropy = take(e, tensors, taken, names[1], F32, n, -1)) ||
        !(spectrum = take(e, tensors, taken, names[2], F32, n, -1)) ||
        !(features = take(e, tensors, taken, names[3], F32, n, -1)) ||
        !(lengths = take(e, tensors, taken, names[4], I32, n, 6)) || !(key = take(e, tensors, taken, names[5], U64, n, 3)) ||
        !(sup = take(e, tensors, taken, names[6], F64, n, 2)))
        return 0;
    w->windows = (struct windows){n, ragged(trace), ragged(entropy), ragged(spectrum), ragged(features)};
    w->lengths = lengths->data;
    w->key = key->data;
    w->sup = sup->data;
    return 1;
}

/* DETECTOR_P, DETECTOR_SUP, COMPONENTS, DETECTOR_LEVEL, DETECTOR_ASSET, DETECTOR_STATUS */
static int detect(const struct entry *e, const struct windowed *w, const struct found *found, void *const *out) {
    struct detector_call call = {
        .windows = w->windows,
        .lengths = w->lengths,
        .lengths_stride = 6,
        .sup = w->sup,
        .sup_stride = 2,
        .catalogue = e->catalogue,
        .assets = (const struct detector *const *)found->assets,
        .fallback = found->flags,
        .step = found->step,
        .p = out[0],
        .sup_out = out[1],
        .components = out[2],
        .level = out[3],
        .asset = out[4],
        .status = out[5],
    };
    return tcd_detector(&call) ? UNSUITED : DONE;
}

/* MULTIVARIATE_P, MULTIVARIATE_SUP, MV, MULTIVARIATE_ASSET, MULTIVARIATE_STATUS */
static void measure(struct tensor features, const int32_t *lengths, const double *sup, int64_t n,
                    const struct found *found, void *const *out) {
    struct multivariate_call call = {
        .n = n,
        .features = features,
        .lengths = lengths,
        .lengths_stride = 6,
        .sup = sup + 1,
        .sup_stride = 2,
        .assets = (const struct reference *const *)found->assets,
        .fallback = found->flags,
        .step = found->step,
        .p = out[0],
        .sup_out = out[1],
        .mv = out[2],
        .asset = out[3],
        .status = out[4],
    };
    tcd_multivariate(&call);
}

EXPORT int tcd_enter_detector(void *tensors, struct entry *e, int64_t n, void *const *out);
EXPORT int tcd_enter_detector(void *tensors, struct entry *e, int64_t n, void *const *out) {
    static const int names[7] = {0, 1, 2, 3, 4, 5, 6};
    struct taken taken = {.used = 0};
    struct windowed w;
    if (n < 1 || n > MOST_ROWS) return UNSUITED;
    if (manifest_changed(e)) return CHANGED;
    struct found found;
    int answer = UNSUITED;
    if (take_windows(e, tensors, &taken, n, names, &w))
        answer = look_up(e, BY_DETECTOR, w.key, n, 3, &found) ? detect(e, &w, &found, out) : UNKNOWN;
    give_back(e, &taken);
    if (answer == DONE) count_bits(e, out[5], n, 0);
    return answer;
}

EXPORT int tcd_enter_multivariate(void *tensors, struct entry *e, int64_t n, void *const *out);
EXPORT int tcd_enter_multivariate(void *tensors, struct entry *e, int64_t n, void *const *out) {
    const struct view *features, *lengths, *key, *sup;
    struct taken taken = {.used = 0};
    int answer = UNSUITED;
    if (n < 1 || n > MOST_ROWS) return UNSUITED;
    if (manifest_changed(e)) return CHANGED;
    if ((features = take(e, tensors, &taken, 0, F32, n, -1)) && (lengths = take(e, tensors, &taken, 1, I32, n, 6)) &&
        (key = take(e, tensors, &taken, 2, U64, n, 3)) && (sup = take(e, tensors, &taken, 3, F64, n, 2))) {
        struct found found;
        answer = look_up(e, BY_MULTIVARIATE, key->data, n, 3, &found) ? DONE : UNKNOWN;
        if (answer == DONE) measure(ragged(features), lengths->data, sup->data, n, &found, out);
    }
    give_back(e, &taken);
    if (answer == DONE) count_bits(e, out[4], n, 0);
    return answer;
}

/* `made` has the nine tensors of the two steps before. */
static void route(void *const made[9], const int32_t *lengths, const double *alpha, const float *base, int64_t n,
                  const struct found *found, void *const *out) {
    struct routing_call call = {
        .n = n,
        .detector_p = made[0],
        .detector_sup = made[1],
        .detector_level = made[2],
        .detector_asset = made[3],
        .detector_status = made[4],
        .multivariate_p = made[5],
        .multivariate_sup = made[6],
        .multivariate_asset = made[7],
        .multivariate_status = made[8],
        .lengths = lengths,
        .alpha = alpha,
        .base = base,
        .policies = (const struct policy *const *)found->assets,
        .known = found->flags,
        .step = found->step,
        .score = out[0],
        .p_step = out[1],
        .sup_out = out[2],
        .p_value = out[3],
        .trigger = out[4],
        .verdict = out[5],
        .tier = out[6],
        .status = out[7],
        .route = out[8],
        .assets = out[9],
    };
    tcd_route(&call);
}

EXPORT int tcd_enter_routing(void *tensors, struct entry *e, int64_t n, void *const *out);
EXPORT int tcd_enter_routing(void *tensors, struct entry *e, int64_t n, void *const *out) {
    static const struct {
        enum kind kind;
        int width;
    } inputs[13] = {{F64, 2}, {F64, 1}, {F64, 1}, {U64, 1}, {I32, 1}, {F64, 2}, {F64, 1},
                    {U64, 1}, {I32, 1}, {I32, 6}, {U64, 1}, {F64, 1}, {F32, 4}};
    void *data[13];
    struct taken taken = {.used = 0};
    int answer = UNSUITED, found = 0;
    if (n < 1 || n > MOST_ROWS) return UNSUITED;
    if (manifest_changed(e)) return CHANGED;
    for (; found < 13; found++) {
        const struct view *view = take(e, tensors, &taken, found, inputs[found].kind, n, inputs[found].width);
        if (!view) break;
        data[found] = view->data;
    }
    if (found == 13) {
        struct found policies;
        answer = look_up(e, BY_POLICY, data[10], n, 1, &policies) ? DONE : UNKNOWN;
        if (answer == DONE) route(data, data[9], data[11], data[12], n, &policies, out);
    }
    give_back(e, &taken);
    if (answer == DONE) count_bits(e, out[7], n, 16);
    return answer;
}

/* The whole ensemble. `out` has COMPONENTS, MV, the ten tensors of routing, then the nine between the steps. */
EXPORT int tcd_enter_fused(void *tensors, struct entry *e, int64_t n, void *const *out);
EXPORT int tcd_enter_fused(void *tensors, struct entry *e, int64_t n, void *const *out) {
    static const int names[7] = {0, 1, 2, 3, 4, 5, 8};
    const struct view *policy, *alpha, *base;
    struct taken taken = {.used = 0};
    struct windowed w;
    int answer = UNSUITED;
    if (n < 1 || n > MOST_ROWS) return UNSUITED;
    if (manifest_changed(e)) return CHANGED;
    if (take_windows(e, tensors, &taken, n, names, &w) && (policy = take(e, tensors, &taken, 6, U64, n, 1)) &&
        (alpha = take(e, tensors, &taken, 7, F64, n, 1)) && (base = take(e, tensors, &taken, 9, F32, n, 4))) {
        void *const *made = out + 12;
        void *const detected[6] = {made[0], made[1], out[0], made[2], made[3], made[4]};
        void *const measured[5] = {made[5], made[6], out[1], made[7], made[8]};
        struct found detectors, references, policies;
        int known = look_up(e, BY_DETECTOR, w.key, n, 3, &detectors) &&
                    look_up(e, BY_MULTIVARIATE, w.key, n, 3, &references) &&
                    look_up(e, BY_POLICY, policy->data, n, 1, &policies);
        answer = known ? detect(e, &w, &detectors, detected) : UNKNOWN;
        if (answer == DONE) {
            measure(w.windows.features, w.lengths, w.sup, n, &references, measured);
            route(made, w.lengths, alpha->data, base->data, n, &policies, out + 2);
        }
    }
    give_back(e, &taken);
    if (answer == DONE)
        for (int step = 0; step < 24; step += 8) count_bits(e, out[9], n, step);
    return answer;
}
