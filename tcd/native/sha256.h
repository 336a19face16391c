/* SHA-256 (FIPS 180-4). */
#ifndef TCD_SHA256_H
#define TCD_SHA256_H

#include "kernel.h"

#define SHA256_BYTES 32

struct sha256 {
    uint32_t state[8];
    uint64_t length; /* bytes so far */
    uint8_t block[64];
};

void sha256_begin(struct sha256 *hash);
void sha256_update(struct sha256 *hash, const void *data, size_t n);
void sha256_end(struct sha256 *hash, uint8_t digest[SHA256_BYTES]);

#endif
