/* SPDX-License-Identifier: BSD-3-Clause */
/* problem.c: the table of problems; see problem.h. */
#include "check/problem.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define CORRUPTION(remedy, code, sentence) \
    { code, sentence, QCOW2_CORRUPTION, remedy }
#define LEAK(remedy, code, sentence) { code, sentence, QCOW2_LEAK, remedy }
#define INFO(remedy, code, sentence) { code, sentence, QCOW2_INFO, remedy }

const struct problem_kind problem_kinds[NR_PROBLEMS] = {
    [PROBLEM_HEADER] = CORRUPTION(
        REMEDY_NONE, "header-unusable",
        "{text}; what it should be is not known, so it is not repaired"),
    [PROBLEM_L1_TABLE] = CORRUPTION(
        REMEDY_NONE, "l1-table-unusable",
        "{text}; where data lies is not known without it, so nothing is "
        "repaired"),
    [PROBLEM_REFTABLE_UNUSABLE] = CORRUPTION(
        REMEDY_REBUILD, "refcount-table-unusable", "{text}"),
    [PROBLEM_BITMAPS_UNUSABLE] = CORRUPTION(
        REMEDY_BITMAPS, "bitmaps-unusable", "{text}"),
    [PROBLEM_SNAPSHOT_TABLE] = CORRUPTION(
        REMEDY_SNAPSHOTS, "snapshot-table-unusable",
        "{text}; {a} of its snapshots cannot be read"),
    [PROBLEM_SNAPSHOT_UNUSABLE] = CORRUPTION(
        REMEDY_SNAPSHOTS, "snapshot-unusable",
        "snapshot {a}: {text}; it cannot be read"),
    [PROBLEM_SNAPSHOT_ODD] = CORRUPTION(
        REMEDY_SNAPSHOTS, "snapshot-odd", "snapshot {a}: {text}"),
    [PROBLEM_REFCOUNT_LOW] = CORRUPTION(
        REMEDY_REFCOUNT, "refcount-too-low",
        "cluster at {at}: its refcount, {a}, is less than the references to "
        "it, {b}"),
    [PROBLEM_REFCOUNT_HIGH] = LEAK(
        REMEDY_LEAK, "leak",
        "cluster at {at}: its refcount, {a}, is more than the references to "
        "it, {b}"),
    [PROBLEM_REFCOUNT_OVERFLOW] = CORRUPTION(
        REMEDY_NONE, "refcount-overflow",
        "cluster at {at}: the references to it, {b}, are more than a "
        "refcount of this image can say, {a}"),
    [PROBLEM_COPIED_SET] = CORRUPTION(
        REMEDY_COPIED, "copied-but-not-alone",
        "entry at {at}: COPIED is set, but the refcount of what it points "
        "to is {a}"),
    [PROBLEM_COPIED_CLEAR] = CORRUPTION(
        REMEDY_COPIED, "alone-but-not-copied",
        "entry at {at}: COPIED is not set, but the refcount of what it "
        "points to is 1"),
    [PROBLEM_COPIED_COMPRESSED] = CORRUPTION(
        REMEDY_COPIED, "compressed-and-copied",
        "L2 entry at {at}: COPIED is set for a compressed cluster"),
    [PROBLEM_REFTABLE_SHARED] = CORRUPTION(
        REMEDY_REBUILD, "refcount-table-shared",
        "refcount table, cluster at {at}: something else uses it too"),
    [PROBLEM_REFTABLE_RESERVED] = CORRUPTION(
        REMEDY_REBUILD, "refcount-table-reserved-bits",
        "refcount table entry at {at}: reserved bits are set in {hex}"),
    [PROBLEM_REFBLOCK_MISALIGNED] = CORRUPTION(
        REMEDY_REBUILD, "refcount-block-misaligned",
        "refcount table entry at {at}: {hex} is not the start of a cluster"),
    [PROBLEM_REFBLOCK_PAST_END] = CORRUPTION(
        REMEDY_REBUILD, "refcount-block-past-end",
        "refcount table entry at {at}: {hex} is past the end of the file"),
    [PROBLEM_REFBLOCK_UNREACHABLE] = CORRUPTION(
        REMEDY_REBUILD, "refcount-block-unreachable",
        "refcount table entry at {at}: {hex} would count clusters at offsets "
        "that no file has"),
    [PROBLEM_REFBLOCK_SHARED] = CORRUPTION(
        REMEDY_REBUILD, "refcount-block-shared",
        "refcount block at {at}: something else uses its cluster too"),
    [PROBLEM_L1_RESERVED] = CORRUPTION(
        REMEDY_ENTRY, "l1-reserved-bits",
        "L1 entry at {at}: reserved bits are set in {hex}"),
    [PROBLEM_L1_MISALIGNED] = CORRUPTION(
        REMEDY_NONE, "l2-table-misaligned",
        "L1 entry at {at}: {hex} is not the start of a cluster"),
    [PROBLEM_L1_COPIED_NOTHING] = CORRUPTION(
        REMEDY_ENTRY, "copied-but-nothing",
        "L1 entry at {at}: COPIED is set, but there is no L2 table"),
    [PROBLEM_L1_PAST_END] = CORRUPTION(
        REMEDY_NONE, "l2-table-past-end",
        "L1 entry at {at}: {hex} is past the end of the file"),
    [PROBLEM_L2_RESERVED] = CORRUPTION(
        REMEDY_ENTRY, "l2-reserved-bits",
        "L2 entry at {at}: reserved bits are set in {hex}"),
    [PROBLEM_L2_ZERO_IN_V2] = CORRUPTION(
        REMEDY_NONE, "zero-flag-in-version-2",
        "L2 entry at {at}: a zero cluster, which version 2 does not have"),
    [PROBLEM_L2_MISALIGNED] = CORRUPTION(
        REMEDY_NONE, "data-misaligned",
        "L2 entry at {at}: {hex} is not the start of a cluster"),
    [PROBLEM_L2_ZERO_MISALIGNED] = CORRUPTION(
        REMEDY_ENTRY, "zero-cluster-misaligned",
        "L2 entry at {at}: a zero cluster whose place {hex} is not the start "
        "of a cluster"),
    [PROBLEM_L2_ZERO_FLAG] = CORRUPTION(
        REMEDY_ENTRY, "zero-flag-with-subclusters",
        "L2 entry at {at}: the zero flag is set in {hex}, which extended L2 "
        "entries do not have"),
    [PROBLEM_SUBCLUSTERS_ODD] = CORRUPTION(
        REMEDY_NONE, "subclusters-allocated-and-zero",
        "L2 entry at {at}: its bitmap {hex} has subclusters that are both "
        "allocated and zero"),
    [PROBLEM_SUBCLUSTERS_NOWHERE] = CORRUPTION(
        REMEDY_NONE, "subclusters-without-cluster",
        "L2 entry at {at}: its bitmap {hex} has allocated subclusters, but "
        "there is no cluster"),
    [PROBLEM_SUBCLUSTERS_COMPRESSED] = CORRUPTION(
        REMEDY_ENTRY, "subclusters-of-compressed",
        "L2 entry at {at}: a compressed cluster with a bitmap of "
        "subclusters"),
    [PROBLEM_L2_PAST_END] = CORRUPTION(
        REMEDY_NONE, "data-past-end",
        "L2 entry at {at}: {hex} is past the end of the file"),
    [PROBLEM_COMPRESSED_PAST_END] = CORRUPTION(
        REMEDY_NONE, "compressed-past-end",
        "L2 entry at {at}: compressed data at {hex} is past the end of the "
        "file"),
    [PROBLEM_COMPRESSED_DAMAGED] = CORRUPTION(
        REMEDY_NONE, "compressed-damaged",
        "L2 entry at {at}: the compressed data at {hex} cannot be "
        "decompressed"),
    [PROBLEM_COMPRESSED_OUTSIDE] = CORRUPTION(
        REMEDY_NONE, "compressed-beside-data-file",
        "L2 entry at {at}: it is of a compressed cluster, which an image with "
        "a data file cannot have"),
    [PROBLEM_DATA_MISPLACED] = CORRUPTION(
        REMEDY_NONE, "data-misplaced",
        "L2 entry at {at}: it points to {hex} of the data file, where data of "
        "another guest offset belong"),
    [PROBLEM_METADATA_SHARED] = CORRUPTION(
        REMEDY_COPY, "metadata-shared",
        "metadata cluster at {at}: something else uses it too"),
    [PROBLEM_BITMAP_DIRECTORY] = CORRUPTION(
        REMEDY_NONE, "bitmap-directory",
        "bitmap directory entry at {at}: it does not fit the directory"),
    [PROBLEM_BITMAP_TABLE] = CORRUPTION(
        REMEDY_NONE, "bitmap-table",
        "bitmap directory entry at {at}: the table at {hex} with {b} entries "
        "does not lie in clusters of the file, or is too large"),
    [PROBLEM_BITMAP_ENTRY] = CORRUPTION(
        REMEDY_NONE, "bitmap-entry",
        "bitmap table entry at {at}: {hex} is not an entry"),
    [PROBLEM_BITMAP_PAST_END] = CORRUPTION(
        REMEDY_NONE, "bitmap-past-end",
        "bitmap table entry at {at}: {hex} is past the end of the file"),
    [PROBLEM_DIRTY] = INFO(
        REMEDY_FEATURE, "dirty",
        "the dirty bit is set: the image was not closed, or is in use"),
    [PROBLEM_CORRUPT] = INFO(
        REMEDY_FEATURE, "corrupt",
        "the corrupt bit is set: damage was met, and nobody writes to the "
        "image until it is repaired"),
};

bool
problem_is_damage(enum problem problem)
{
    switch (problem_kinds[problem].remedy) {
    case REMEDY_NONE:
    case REMEDY_REBUILD:
    case REMEDY_ENTRY:
    case REMEDY_COPY:
    case REMEDY_BITMAPS:
    case REMEDY_SNAPSHOTS:
        return true;
    case REMEDY_REFCOUNT:
    case REMEDY_LEAK:
    case REMEDY_COPIED:
    case REMEDY_FEATURE:
        return false;
    }
    return true;
}

const char *
problem_remedy(enum remedy remedy)
{
    switch (remedy) {
    case REMEDY_NONE:
        return NULL;
    case REMEDY_REFCOUNT:
        return "raise the refcount";
    case REMEDY_LEAK:
        return "lower the refcount, which frees what nothing uses";
    case REMEDY_COPIED:
        return "set or clear COPIED";
    case REMEDY_REBUILD:
        return "write all refcounts anew, at the end of the file";
    case REMEDY_ENTRY:
        return "put the entry right; it reads as before";
    case REMEDY_COPY:
        return "move what can be moved to a place of its own: guest data, the "
               "L1 table of a snapshot, or an L2 table";
    case REMEDY_BITMAPS:
        return "drop all bitmaps, by clearing their feature bit";
    case REMEDY_SNAPSHOTS:
        return "write the snapshot table anew: entries that cannot be read "
               "are dropped, others keep what can be used of them";
    case REMEDY_FEATURE:
        return "clear the bit once no corruption is left";
    }
    return NULL;
}

/* Appends at text[*len], cutting. */
static void
append(char *text, size_t nr_bytes, size_t *len, const char *s, size_t n)
{
    while (n-- > 0 && *len + 1 < nr_bytes)
        text[(*len)++] = *s++;
    text[*len] = '\0';
}

/* What the placeholder at s stands for; 0: there is none. */
static int
print_number(const struct finding *f, const char *s, char buf[32])
{
    if (strncmp(s, "{at}", 4) == 0)
        return snprintf(buf, 32, "0x%" PRIx64, f->at);
    if (strncmp(s, "{hex}", 5) == 0)
        return snprintf(buf, 32, "0x%" PRIx64, f->a);
    if (strncmp(s, "{a}", 3) == 0)
        return snprintf(buf, 32, "%" PRIu64, f->a);
    if (strncmp(s, "{b}", 3) == 0)
        return snprintf(buf, 32, "%" PRIu64, f->b);
    return 0;
}

void
problem_text(const struct finding *f, char *text, size_t nr_bytes)
{
    const char *s = problem_kinds[f->problem].sentence;
    size_t len = 0;

    text[0] = '\0';
    while (*s) {
        char number[32];
        int n = print_number(f, s, number);

        if (f->text && strncmp(s, "{text}", 6) == 0) {
            append(text, nr_bytes, &len, f->text, strlen(f->text));
            s += 6;
        } else if (n > 0) {
            append(text, nr_bytes, &len, number, n);
            s = strchr(s, '}') + 1;
        } else {
            append(text, nr_bytes, &len, s++, 1);
        }
    }
    if (f->nr > 1) {
        char more[64];
        int n = snprintf(more, sizeof more,
                         "; the same for %" PRIu64 " after it", f->nr - 1);

        append(text, nr_bytes, &len, more, n);
    }
}
