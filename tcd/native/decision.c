/* A decision's record: digests of the objects that it names, its witness segments, its numbers, its head.
 * tcd/receipts/filling.py is the same in Python; tcd/receipts/decisions.py makes the template. */
#include "jcs.h"

#define STEPS 4294967295.0
#define REALS 20
#define SIGNALS 4
#define RANDOM 16
#define CHUNK 512
#define MAX_BODY 16384

/* Control characters of a template: 1 to REALS stand for the numbers, these for the rest. */
enum { NONCE = REALS + 1, REQUEST, COMPONENTS_, E_OBJECT, WITNESS };
enum { NOT_FINITE = -1, STRANGE_REQUEST = -2, STRANGE_COMPONENTS = -3, BAD_WITNESS = -4, TOO_LONG = -5, BAD_TEMPLATE = -6 };

/* A window: n values, row-major; 0 = absent. */
struct signal {
    const float *data;
    int64_t n;
};

struct decision_call {
    int64_t template_n;
    int64_t request_n;    /* -1: the template has no mark for it */
    int64_t components_n; /* of an object whose first member is "av" */
    int64_t exact;        /* 1: both are RFC 8785 already, 2: the request is */
    struct signal signals[SIGNALS]; /* trace, entropy, spectrum, features */
    double reals[REALS];
    uint8_t random[(1 + SIGNALS) * RANDOM]; /* a nonce, and salts for the signals that are there */
};

/* Text in the making. */
struct text {
    char *at, *end;
    int overflow;
};

static void put(struct text *text, const char *from, size_t n) {
    if ((size_t)(text->end - text->at) < n) {
        text->overflow = 1;
        return;
    }
    memcpy(text->at, from, n);
    text->at += n;
}

#define PUT(text, literal) put(text, literal, sizeof literal - 1)

static void put_hex(struct text *text, const uint8_t *bytes, int n) {
    char hex[2 * SHA256_BYTES];
    for (int i = 0; i < n; i++) {
        hex[2 * i] = "0123456789abcdef"[bytes[i] >> 4];
        hex[2 * i + 1] = "0123456789abcdef"[bytes[i] & 15];
    }
    put(text, hex, 2 * (size_t)n);
}

static void put_digest(struct text *text, struct sha256 *hash) {
    uint8_t digest[SHA256_BYTES];
    sha256_end(hash, digest);
    PUT(text, "sha256:");
    put_hex(text, digest, SHA256_BYTES);
}

static void put_real(struct text *text, double value) {
    uint8_t bytes[8];
    /* adding zero makes a negative zero a zero */
    uint64_t bits = double_to_bits(value + 0.0);
    for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)(bits >> (56 - 8 * i));
    put_hex(text, bytes, 8);
}

static void put_count(struct text *text, int64_t value) {
    char digits[20];
    int at = 20;
    do digits[--at] = (char)('0' + value % 10);
    while (value /= 10);
    put(text, digits + at, (size_t)(20 - at));
}

CLONES static int range_of(const struct signal *signal, double *lo, double *hi) {
    const float *x = signal->data;
    float low = x[0], high = x[0];
    int32_t strange = 0;
    for (int64_t i = 0; i < signal->n; i++) {
        /* infinities and NaN give NaN */
        strange |= !(x[i] * 0.0f == 0.0f);
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    *lo = low;
    *hi = high;
    return strange;
}

/* Lattice points as bytes, least significant first; tcd/receipts/witness.py says what they are. */
CLONES static void lattice_points(const float *x, int64_t n, double lo, double width, uint32_t *points) {
    for (int64_t i = 0; i < n; i++) {
        double point = width == 0.0 ? 0.0 : rint(((double)x[i] - lo) * STEPS / width);
        point = point < 0.0 ? 0.0 : point;
        point = point > STEPS ? STEPS : point;
        points[i] = (uint32_t)point;
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
        points[i] = __builtin_bswap32(points[i]);
#endif
    }
}

static int put_segment(struct text *text, const struct signal *signal, const char *name, const uint8_t *salt) {
    uint8_t size[4];
    uint32_t points[CHUNK];
    struct sha256 hash;
    double lo, hi;
    if (range_of(signal, &lo, &hi)) return 1;
    for (int i = 0; i < 4; i++) size[i] = (uint8_t)((uint64_t)signal->n >> (24 - 8 * i));
    sha256_begin(&hash);
    sha256_update(&hash, "tcd/witness/v1", sizeof "tcd/witness/v1");
    sha256_update(&hash, name, strlen(name) + 1);
    sha256_update(&hash, salt, RANDOM);
    sha256_update(&hash, size, sizeof size);
    for (int64_t i = 0; i < signal->n; i += CHUNK) {
        int64_t some = least(CHUNK, signal->n - i);
        lattice_points(signal->data + i, some, lo, hi - lo, points);
        sha256_update(&hash, points, (size_t)some * sizeof *points);
    }
    PUT(text, "{\"digest\":\"");
    put_digest(text, &hash);
    PUT(text, "\",\"hi\":\"");
    put_real(text, hi);
    PUT(text, "\",\"lo\":\"");
    put_real(text, lo);
    PUT(text, "\",\"n\":");
    put_count(text, signal->n);
    PUT(text, ",\"name\":\"");
    put(text, name, strlen(name));
    PUT(text, "\",\"q\":\"affine-u32/1\",\"salt\":\"");
    put_hex(text, salt, RANDOM);
    PUT(text, "\"}");
    return 0;
}

static int put_witness(struct text *text, const struct decision_call *call) {
    static const char *const names[SIGNALS] = {"trace", "entropy", "spectrum", "features"};
    const uint8_t *salt = call->random + RANDOM;
    PUT(text, "[");
    for (int i = 0; i < SIGNALS; i++) {
        if (!call->signals[i].n) continue;
        if (salt != call->random + RANDOM) PUT(text, ",");
        if (put_segment(text, &call->signals[i], names[i], salt)) return 1;
        salt += RANDOM;
    }
    PUT(text, "]");
    return 0;
}

static int put_object(struct text *text, const char *object, int64_t n, int exact) {
    struct sha256 hash;
    sha256_begin(&hash);
    if (exact)
        sha256_update(&hash, object, (size_t)n);
    else if (jcs_update(&hash, object, n))
        return 1;
    put_digest(text, &hash);
    return 0;
}

/* Length of the object at text[0], 0 when it does not end. */
static int64_t object_size(const char *text, int64_t n) {
    int64_t depth = 0;
    for (int64_t i = 0; i < n; i++) {
        if (text[i] == '"') {
            for (i++; i < n && text[i] != '"'; i++)
                if (text[i] == '\\') return 0;
        } else if (text[i] == '{') {
            depth++;
        } else if (text[i] == '}' && !--depth) {
            return i + 1;
        }
    }
    return 0;
}

#define AV "{\"av\":"

static int put_e_object(struct text *text, const char *components, int64_t n, int exact) {
    int64_t skip = sizeof AV - 1;
    if (n < skip || memcmp(components, AV, (size_t)skip) != 0 || components[skip] != '{') return 1;
    int64_t size = object_size(components + skip, n - skip);
    return !size || put_object(text, components + skip, size, exact);
}

/* First control character of text[0 .. n), or n. */
static int64_t mark(const char *text, int64_t n) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        uint64_t x;
        memcpy(&x, text + i, 8);
        if ((x - 0x2020202020202020ull) & ~x & 0x8080808080808080ull) break;
    }
    while (i < n && (uint8_t)text[i] >= 0x20) i++;
    return i;
}

/* Head (32 bytes) and body into `out`, which has room for both; the body's length, or a negative code. */
EXPORT int tcd_decision(const char *template, const char *request, const char *components,
                        const struct decision_call *call, char *out) {
    struct text text = {out + SHA256_BYTES, out + SHA256_BYTES + MAX_BODY, 0};
    for (int i = 0; i < REALS; i++)
        if (!isfinite(call->reals[i])) return NOT_FINITE;
    for (int64_t at = 0; at < call->template_n; at++) {
        int64_t end = at + mark(template + at, call->template_n - at);
        put(&text, template + at, (size_t)(end - at));
        at = end;
        if (at == call->template_n) break;
        int what = (uint8_t)template[at];
        if (what >= 1 && what <= REALS) {
            put_real(&text, call->reals[what - 1]);
        } else if (what == NONCE) {
            put_hex(&text, call->random, RANDOM);
        } else if (what == REQUEST) {
            if (call->request_n < 0 || put_object(&text, request, call->request_n, call->exact != 0))
                return STRANGE_REQUEST;
        } else if (what == COMPONENTS_) {
            if (put_object(&text, components, call->components_n, call->exact == 1)) return STRANGE_COMPONENTS;
        } else if (what == E_OBJECT) {
            if (put_e_object(&text, components, call->components_n, call->exact == 1)) return STRANGE_COMPONENTS;
        } else if (what == WITNESS) {
            if (put_witness(&text, call)) return BAD_WITNESS;
        } else {
            return BAD_TEMPLATE;
        }
    }
    if (text.overflow) return TOO_LONG;
    struct sha256 hash;
    sha256_begin(&hash);
    sha256_update(&hash, "tcd/receipt/v2/head", sizeof "tcd/receipt/v2/head");
    sha256_update(&hash, out + SHA256_BYTES, (size_t)(text.at - out - SHA256_BYTES));
    sha256_end(&hash, (uint8_t *)out);
    return (int)(text.at - out - SHA256_BYTES);
}
