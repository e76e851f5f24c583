/* SPDX-License-Identifier: BSD-3-Clause */
/* zeroed.c: arrays of zeroes that take memory where they are written; see
 * zeroed.h.
 */
#include "base/zeroed.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/blocks.h"
#include "base/checked.h"

enum {
    /* The C library gives such blocks pages of their own, too, but stops
     * doing so after it was given some back. */
    MIN_MAPPED_BYTES = 64 << 10,
    PIECE_BYTES = 4096,
};

/* AddressSanitizer sees what is done out of bounds in its own blocks only. */
#ifdef __SANITIZE_ADDRESS__
enum { CAN_MAP = 0 };
#else
enum { CAN_MAP = 1 };
#endif

static bool
is_mapped(size_t nr_bytes)
{
    return CAN_MAP && nr_bytes >= MIN_MAPPED_BYTES;
}

void *
zeroed_new(size_t nr_bytes)
{
    void *p;

    if (!is_mapped(nr_bytes))
        return calloc(1, nr_bytes ? nr_bytes : 1);
    p = mmap(NULL, nr_bytes, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
#ifdef MADV_NOHUGEPAGE
    /* One word would take 2 MiB else. */
    madvise(p, nr_bytes, MADV_NOHUGEPAGE);
#endif
    return p;
}

void
zeroed_free(void *p, size_t nr_bytes)
{
    if (!is_mapped(nr_bytes))
        free(p);
    else if (p)
        munmap(p, nr_bytes);
}

size_t
zeroed_copy(void *to, const void *from, size_t nr_bytes)
{
    size_t nr_copied = 0;

    for (size_t at = 0, n; at < nr_bytes; at += n) {
        const unsigned char *p = (const unsigned char *)from + at;

        n = min_u64(nr_bytes - at, PIECE_BYTES);
        if (bytes_are_zero(p, n))
            continue;
        memcpy((unsigned char *)to + at, p, n);
        nr_copied += n;
    }
    return nr_copied;
}
