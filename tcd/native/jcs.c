/* Numbers of JSON as ECMAScript writes them (RFC 8785, section 3.2.2.3): the same digits, another notation. */
#include "jcs.h"

#define MOST_DIGITS 32
/* Where ECMAScript changes to an exponent. */
#define POINT_MIN (-6)
#define POINT_MAX 21
#define MOST_EXPONENT 400

INLINE int is_digit(char c) { return c >= '0' && c <= '9'; }

/* The number at text[0 .. n) rewritten into out (64 bytes); its length, or -1 when it is none that is expected. */
static int rewritten(const char *text, int64_t n, char *out) {
    char digits[MOST_DIGITS];
    int count = 0, point = 0, at = 0, fraction = 0, seen = 0;
    int64_t i = 0;
    if (text[0] == '-') i++;
    for (; i < n && (is_digit(text[i]) || text[i] == '.'); i++) {
        if (text[i] == '.') {
            if (fraction) return -1;
            fraction = 1;
            continue;
        }
        seen = 1;
        /* a zero before the first other digit only moves the point */
        if (!count && text[i] == '0') {
            point -= fraction;
            continue;
        }
        if (count == MOST_DIGITS) return -1;
        digits[count++] = text[i];
        point += !fraction;
    }
    if (!seen) return -1;
    if (i < n) {
        int exponent = 0, minus = 0, any = 0;
        if (text[i++] != 'e') return -1;
        if (i < n && (text[i] == '-' || text[i] == '+')) minus = text[i++] == '-';
        for (; i < n && is_digit(text[i]); i++, any = 1)
            if ((exponent = 10 * exponent + (text[i] - '0')) > MOST_EXPONENT) return -1;
        if (!any || i < n) return -1;
        point += minus ? -exponent : exponent;
    }
    while (count && digits[count - 1] == '0') count--;
    if (!count) {
        out[0] = '0';
        return 1;
    }
    if (text[0] == '-') out[at++] = '-';
    if (point > 0 && point <= POINT_MAX) {
        for (int k = 0; k < point; k++) out[at++] = k < count ? digits[k] : '0';
        if (count > point) {
            out[at++] = '.';
            memcpy(out + at, digits + point, (size_t)(count - point));
            at += count - point;
        }
        return at;
    }
    if (point > POINT_MIN && point <= 0) {
        out[at++] = '0';
        out[at++] = '.';
        for (int k = 0; k < -point; k++) out[at++] = '0';
        memcpy(out + at, digits, (size_t)count);
        return at + count;
    }
    out[at++] = digits[0];
    if (count > 1) {
        out[at++] = '.';
        memcpy(out + at, digits + 1, (size_t)count - 1);
        at += count - 1;
    }
    int exponent = point - 1, size = exponent < 0 ? -exponent : exponent;
    out[at++] = 'e';
    out[at++] = exponent < 0 ? '-' : '+';
    if (size >= 100) out[at++] = (char)('0' + size / 100);
    if (size >= 10) out[at++] = (char)('0' + size / 10 % 10);
    out[at++] = (char)('0' + size % 10);
    return at;
}

int jcs_update(struct sha256 *hash, const char *text, int64_t n) {
    int64_t done = 0;
    for (int64_t i = 0; i < n; i++) {
        char c = text[i];
        if (c == '"') {
            for (i++; i < n && text[i] != '"'; i++)
                if (text[i] == '\\' || (signed char)text[i] < 0x20) return 1;
            if (i == n) return 1;
        } else if (c == '-' || is_digit(c)) {
            int64_t end = i + 1;
            int plain = 1;
            for (; end < n && text[end] != ',' && text[end] != '}' && text[end] != ']'; end++) plain &= is_digit(text[end]);
            /* an integer is what it is, but for a zero with a sign */
            if (!plain || (c == '-' && (end == i + 1 || (end == i + 2 && text[i + 1] == '0')))) {
                char number[64];
                int size = rewritten(text + i, end - i, number);
                if (size < 0) return 1;
                sha256_update(hash, text + done, (size_t)(i - done));
                sha256_update(hash, number, (size_t)size);
                done = end;
            }
            i = end - 1;
        } else if ((signed char)c < 0x21) {
            return 1;
        }
    }
    sha256_update(hash, text + done, (size_t)(n - done));
    return 0;
}
