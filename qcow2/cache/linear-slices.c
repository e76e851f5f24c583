/* SPDX-License-Identifier: BSD-3-Clause */
/* linear-slices.c: L2 slices that are linear; see linear-slices.h. */
#include "cache/linear-slices.h"

#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/zeroed.h"

/* 32 TiB with clusters of 64 KiB. Memory is taken as it is used. */
enum { MAX_WINDOWS = 1 << 20 };

int
linear_init(struct linear_slices *linear, struct cache *cache,
            uint64_t nr_windows, struct qcow2_error *err)
{
    linear->nr = min_u64(nr_windows, MAX_WINDOWS);
    linear->beside = cache;
    if (!cache_take_beside(cache, linear->nr * sizeof *linear->words))
        linear->nr = 0;
    linear->words = zeroed_new(linear->nr * sizeof *linear->words);
    return linear->words ? 0 : error_nomem(err);
}

void
linear_destroy(struct linear_slices *linear)
{
    uint64_t nr_bytes = linear->nr * sizeof *linear->words;

    if (linear->beside)
        cache_give_back_beside(linear->beside, nr_bytes);
    zeroed_free(linear->words, nr_bytes);
    memset(linear, 0, sizeof *linear);
}

bool
linear_any(const struct linear_slices *linear, uint64_t window, uint64_t nr,
           uint64_t but)
{
    uint64_t end = min_u64(window + nr, linear->nr);

    for (uint64_t i = window; i < end; i++)
        if (i != but && __atomic_load_n(&linear->words[i], __ATOMIC_RELAXED))
            return true;
    return false;
}

void
linear_note(struct linear_slices *linear, uint64_t window, uint64_t first)
{
    uint64_t unknown = 0;

    if (window < linear->nr)
        __atomic_compare_exchange_n(&linear->words[window], &unknown,
                                    first | LINEAR_KNOWN, false,
                                    __ATOMIC_RELEASE, __ATOMIC_RELAXED);
}

void
linear_end(struct linear_slices *linear, uint64_t window, uint64_t nr)
{
    uint64_t end = min_u64(window + nr, linear->nr);

    for (uint64_t i = window; i < end; i++)
        __atomic_store_n(&linear->words[i], LINEAR_ENDED, __ATOMIC_RELEASE);
}

void
linear_forget(struct linear_slices *linear)
{
    /* Memory that was never used stays so. */
    for (uint64_t i = 0; i < linear->nr; i++)
        if (linear->words[i] != 0)
            linear->words[i] = 0;
}
