/* SPDX-License-Identifier: BSD-3-Clause */
/* bitmap-marks.c: marks of changes; see bitmap-marks.h. */
#include "meta/bitmap-marks.h"

#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/zeroed.h"

/* The first marked (or unmarked) bit in [from, end); end: none. */
static uint64_t
find_mark(const struct bitmap_marks *m, uint64_t from, uint64_t end,
          bool value)
{
    while (from < end) {
        uint64_t word = __atomic_load_n(&m->words[from / 64],
                                        __ATOMIC_RELAXED);

        word = (value ? word : ~word) >> from % 64;
        if (word)
            return min_u64(end, from + __builtin_ctzll(word));
        from = round_down(from, 64) + 64;
    }
    return end;
}

static int
next_range(struct dirty_ranges *ranges, uint64_t *guest_off, uint64_t end,
           uint64_t *nr_bytes, struct qcow2_error *err)
{
    struct bitmap_marks *m = (struct bitmap_marks *)ranges;
    unsigned g = m->granularity_bits;
    uint64_t nr_bits = min_u64(m->nr_words * 64,
                               div_round_up(end, UINT64_C(1) << g));
    uint64_t from = find_mark(m, *guest_off >> g, nr_bits, true), to;

    (void)err;
    *nr_bytes = 0;
    if (from >= nr_bits)
        return 0;
    to = find_mark(m, from, nr_bits, false);
    *guest_off = max_u64(*guest_off, from << g);
    *nr_bytes = min_u64(end, to << g) - *guest_off;
    return 0;
}

int
bitmap_marks_init(struct bitmap_marks *m, uint64_t disk_size,
                  unsigned granularity_bits, struct qcow2_error *err)
{
    while (bitmap_bytes(disk_size, granularity_bits) > MAX_BITMAP_MARKS_BYTES)
        granularity_bits++;
    *m = (struct bitmap_marks){
        .ranges.next = next_range,
        .granularity_bits = granularity_bits,
        .nr_words = bitmap_bytes(disk_size, granularity_bits) / 8 + 1,
    };
    m->words = zeroed_new(m->nr_words * sizeof *m->words);
    return m->words ? 0 : error_nomem(err);
}

void
bitmap_marks_free(struct bitmap_marks *m)
{
    zeroed_free(m->words, m->nr_words * sizeof *m->words);
}

int
bitmap_marks_grow(struct bitmap_marks *m, uint64_t disk_size,
                  struct qcow2_error *err)
{
    uint64_t end = m->nr_words * 64 << m->granularity_bits, at = 0, n;
    struct bitmap_marks larger;

    if (disk_size <= end)
        return 0;
    if (bitmap_marks_init(&larger, disk_size, m->granularity_bits, err) == -1)
        return -1;
    for (; next_range(&m->ranges, &at, end, &n, NULL) == 0 && n > 0; at += n)
        bitmap_marks_set(&larger, at, n);
    bitmap_marks_free(m);
    *m = larger;
    return 0;
}

/* A word that has all of the marks is left alone: disks are written again and
 * again in the same places, by several threads. */
void
bitmap_marks_set(struct bitmap_marks *m, uint64_t guest_off,
                 uint64_t nr_bytes)
{
    uint64_t bit = guest_off >> m->granularity_bits, last;

    if (nr_bytes == 0)
        return;
    last = (guest_off + nr_bytes - 1) >> m->granularity_bits;
    while (bit <= last) {
        uint64_t *word = &m->words[bit / 64];
        unsigned n = min_u64(64 - bit % 64, last - bit + 1);
        uint64_t marks = (n == 64 ? UINT64_MAX : (UINT64_C(1) << n) - 1)
                         << bit % 64;

        if ((__atomic_load_n(word, __ATOMIC_RELAXED) & marks) != marks)
            __atomic_fetch_or(word, marks, __ATOMIC_RELAXED);
        bit += n;
    }
}
