/* SPDX-License-Identifier: BSD-3-Clause */
/* audit.h: checks the references of an image that stands in memory; fast
 * enough for a million crash states, and written without the engine's code.
 *
 * What a crash may never leave (corruption): a refcount below the number of
 * references, COPIED on what is shared, a cluster with two owners, an entry
 * that points nowhere, has reserved bits, or a bitmap of subclusters that
 * contradicts itself or the entry. What it may leave: leaks.
 */
#ifndef AUDIT_H
#define AUDIT_H

#include <stdbool.h>
#include <stdint.h>

struct audit {
    unsigned nr_corruptions;
    unsigned nr_miscopied;   /* of those: COPIED where the refcount is too
                              * high, but nobody shares: harmless as long as
                              * the next to share clears it */
    unsigned nr_uncounted;   /* of those: refcounts below the references, and
                              * COPIED where the refcount is 0 but nobody
                              * shares: what lazy refcounts leave */
    unsigned nr_uncopied;    /* the active disk's own clusters without
                              * COPIED: safe, but qemu-img objects */
    unsigned nr_leaks;       /* clusters whose refcount is too high */
    bool dirty, corrupt, lazy; /* feature bits */
    uint64_t nr_data;        /* data clusters of the active disk */
    char first[256];         /* the first corruption, in words */
};

void audit_image(const unsigned char *bytes, uint64_t nr_bytes,
                 struct audit *a);

/* The corruptions that the next opening mends: with the dirty bit COPIED may
 * be wrong, and with lazy refcounts refcounts may be too low as well. */
unsigned audit_nr_mendable(const struct audit *a);

/* Neither corruption, uncopied nor leaks, and no feature bit raised. */
bool audit_is_clean(const struct audit *a);

#endif /* AUDIT_H */
