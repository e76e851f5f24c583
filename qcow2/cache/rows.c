/* SPDX-License-Identifier: BSD-3-Clause */
/* rows.c: L2 slices that are one row; see rows.h. */
#include "cache/rows.h"

#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/zeroed.h"

/* 32 TiB with clusters of 64 KiB. Memory is taken as it is used. */
enum { MAX_WINDOWS = 1 << 20 };

int
rows_init(struct rows *rows, struct cache *cache, uint64_t nr_windows,
          struct qcow2_error *err)
{
    rows->nr = min_u64(nr_windows, MAX_WINDOWS);
    rows->beside = cache;
    if (!cache_take_beside(cache, rows->nr * sizeof *rows->words))
        rows->nr = 0;
    rows->words = zeroed_new(rows->nr * sizeof *rows->words);
    return rows->words ? 0 : error_nomem(err);
}

void
rows_destroy(struct rows *rows)
{
    uint64_t nr_bytes = rows->nr * sizeof *rows->words;

    if (rows->beside)
        cache_give_back_beside(rows->beside, nr_bytes);
    zeroed_free(rows->words, nr_bytes);
    memset(rows, 0, sizeof *rows);
}

bool
rows_any(const struct rows *rows, uint64_t window, uint64_t nr, uint64_t but)
{
    uint64_t end = min_u64(window + nr, rows->nr);

    for (uint64_t i = window; i < end; i++)
        if (i != but && __atomic_load_n(&rows->words[i], __ATOMIC_RELAXED))
            return true;
    return false;
}

void
rows_note(struct rows *rows, uint64_t window, uint64_t first)
{
    uint64_t unknown = 0;

    if (window < rows->nr)
        __atomic_compare_exchange_n(&rows->words[window], &unknown,
                                    first | ROW_KNOWN, false,
                                    __ATOMIC_RELEASE, __ATOMIC_RELAXED);
}

void
rows_end(struct rows *rows, uint64_t window, uint64_t nr)
{
    uint64_t end = min_u64(window + nr, rows->nr);

    for (uint64_t i = window; i < end; i++)
        __atomic_store_n(&rows->words[i], ROW_ENDED, __ATOMIC_RELEASE);
}

void
rows_forget(struct rows *rows)
{
    /* Memory that was never used stays so. */
    for (uint64_t i = 0; i < rows->nr; i++)
        if (rows->words[i] != 0)
            rows->words[i] = 0;
}
