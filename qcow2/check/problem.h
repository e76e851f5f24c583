/* SPDX-License-Identifier: BSD-3-Clause */
/* problem.h: all that a check can find wrong with an image: its code, what
 * it means, how bad it is, and what repair does about it.
 */
#ifndef QCOW2_PROBLEM_H
#define QCOW2_PROBLEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qcow2.h"

enum problem {
    PROBLEM_HEADER,
    PROBLEM_L1_TABLE,
    PROBLEM_REFTABLE_UNUSABLE,
    PROBLEM_BITMAPS_UNUSABLE,
    PROBLEM_SNAPSHOT_TABLE,
    PROBLEM_SNAPSHOT_UNUSABLE,
    PROBLEM_SNAPSHOT_ODD,
    PROBLEM_REFCOUNT_LOW,
    PROBLEM_REFCOUNT_HIGH,
    PROBLEM_REFCOUNT_OVERFLOW,
    PROBLEM_COPIED_SET,
    PROBLEM_COPIED_CLEAR,
    PROBLEM_COPIED_COMPRESSED,
    PROBLEM_REFTABLE_SHARED,
    PROBLEM_REFTABLE_RESERVED,
    PROBLEM_REFBLOCK_MISALIGNED,
    PROBLEM_REFBLOCK_PAST_END,
    PROBLEM_REFBLOCK_UNREACHABLE,
    PROBLEM_REFBLOCK_SHARED,
    PROBLEM_L1_RESERVED,
    PROBLEM_L1_MISALIGNED,
    PROBLEM_L1_COPIED_NOTHING,
    PROBLEM_L1_PAST_END,
    PROBLEM_L2_RESERVED,
    PROBLEM_L2_ZERO_IN_V2,
    PROBLEM_L2_MISALIGNED,
    PROBLEM_L2_ZERO_MISALIGNED,
    PROBLEM_L2_ZERO_FLAG,
    PROBLEM_SUBCLUSTERS_ODD,
    PROBLEM_SUBCLUSTERS_NOWHERE,
    PROBLEM_SUBCLUSTERS_COMPRESSED,
    PROBLEM_L2_PAST_END,
    PROBLEM_COMPRESSED_PAST_END,
    PROBLEM_COMPRESSED_DAMAGED,
    PROBLEM_COMPRESSED_OUTSIDE,
    PROBLEM_DATA_MISPLACED,
    PROBLEM_METADATA_SHARED,
    PROBLEM_BITMAP_DIRECTORY,
    PROBLEM_BITMAP_TABLE,
    PROBLEM_BITMAP_ENTRY,
    PROBLEM_BITMAP_PAST_END,
    PROBLEM_DIRTY,
    PROBLEM_CORRUPT,
    NR_PROBLEMS,
};

/* What repair does about it. */
enum remedy {
    REMEDY_NONE,     /* nothing that would not lose something */
    REMEDY_REFCOUNT, /* the refcount is raised */
    REMEDY_LEAK,     /* the refcount is lowered */
    REMEDY_COPIED,   /* COPIED is set or cleared */
    REMEDY_REBUILD,  /* refcounts are written anew, elsewhere */
    REMEDY_ENTRY,    /* the entry is put right; it reads as before */
    REMEDY_COPY,     /* what can moves to another place */
    REMEDY_BITMAPS,  /* bitmaps are made invalid */
    REMEDY_SNAPSHOTS, /* a new snapshot table without what makes no sense */
    REMEDY_FEATURE,  /* the bit is cleared when nothing else is left */
};

struct problem_kind {
    const char *code;
    /* {at} (hexadecimal), {a}, {b} and {hex} (a, hexadecimal) stand for
     * the numbers of a finding, {text} for its text. */
    const char *sentence;
    enum qcow2_severity severity;
    enum remedy remedy;
};
extern const struct problem_kind problem_kinds[NR_PROBLEMS];

/* One of them, found at a place. */
struct finding {
    enum problem problem;
    uint64_t at;  /* host offset of the entry or cluster that is wrong */
    uint64_t nr;  /* clusters in a row with just this problem */
    uint64_t a, b;
    const char *text; /* or NULL */
};

/* Is it more than a crash of whatever wrote the image can leave behind? */
bool problem_is_damage(enum problem problem);

/* The sentence with the numbers in it; cut where it does not fit. */
void problem_text(const struct finding *f, char *text, size_t nr_bytes);

/* What remedy does, in words; NULL for REMEDY_NONE. */
const char *problem_remedy(enum remedy remedy);

#endif /* QCOW2_PROBLEM_H */
