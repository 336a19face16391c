/* RFC 8785 digests of JSON text that needs no more than its numbers rewritten. */
#ifndef TCD_JCS_H
#define TCD_JCS_H

#include "sha256.h"

/* Hash the RFC 8785 form of compact JSON text with sorted keys, ASCII strings without escapes, and numbers of the
 * fewest digits that round-trip; 0, or 1 when it is not of this form. */
int jcs_update(struct sha256 *hash, const char *text, int64_t n);

#endif
