/* SPDX-License-Identifier: BSD-3-Clause */
/* test-shared.c: 64-bit numbers that threads share without a lock do not lie
 * in two cache lines, where a load could see half of a store. Only 32-bit
 * machines could have them there (make check-foreign).
 */
#include <stddef.h>
#include <string.h>

#include "base/shared.h"
#include "cache/cache.h"
#include "expect.h"
#include "meta/image.h"
#include "storage/io.h"

static void
members_are_aligned(void **state)
{
    struct some {
        char before;
        shared_u64 numbers[];
    };

    (void)state;
    assert_int_equal(offsetof(struct some, numbers), 8);
    assert_int_equal(offsetof(struct dirty_set, nr_bytes) % 8, 0);
    assert_int_equal(offsetof(struct image, known_end) % 8, 0);
    assert_int_equal(offsetof(struct image, l2_dirty) % 8, 0);
    assert_int_equal(offsetof(struct io, nr_changes) % 8, 0);
    assert_int_equal(offsetof(struct io, nr_durable) % 8, 0);
}

static int
load(void *opaque, uint64_t key, void *data, uint32_t size,
     struct qcow2_error *err)
{
    (void)opaque;
    (void)key;
    (void)err;
    memset(data, 0, size);
    return 0;
}

/* L2 entries are loaded while others change. */
static void
data_of_blocks_are_aligned(void **state)
{
    struct cache *c = cache_new(1 << 20, NULL);
    static const char owner;

    (void)state;
    assert_non_null(c);
    for (uint32_t size = 512; size <= 65536; size *= 2) {
        struct block *b = cache_get(c, &owner, size, size, load, NULL, NULL);

        assert_non_null(b);
        assert_int_equal((uintptr_t)b->data % 8, 0);
        cache_put(b);
    }
    cache_free(c);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_are_aligned),
        cmocka_unit_test(data_of_blocks_are_aligned),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
