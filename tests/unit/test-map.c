/* SPDX-License-Identifier: BSD-3-Clause */
/* test-map.c: L2 entries as mappings, changes of them and what they free, and
 * which L1 entries a flush takes.
 */
#include "meta/map.h"

#include <errno.h>

#include "bare.h"
#include "expect.h"
#include "format/entry.h"
#include "meta/alloc.h"
#include "meta/flush.h"
#include "meta/l1.h"
#include "meta/refcount.h"

/* A table covers 64 clusters. */
enum { C = 512, TABLE = 64 * C };

#define IMAGE "cluster 512; refcount-bits 64; size 128K; data 0-9 1;"       \
              "zero 10-11; zero-alloc 12-13; compressed 14-15 2;"

static struct mapping
look_up(struct bare *b, uint64_t off, uint64_t nr_bytes)
{
    struct qcow2_error err;
    struct mapping m;

    EXPECT_OK(map_lookup(&b->img->active, off, nr_bytes, &m, &err), &err);
    EXPECT(m.source == &b->img->active.src, "source");
    return m;
}

static struct map_cursor
prepare(struct bare *b, uint64_t off)
{
    struct map_cursor c = map_cursor(&b->img->active);
    struct qcow2_error err;

    EXPECT_OK(map_prepare(&c, off, &err), &err);
    return c;
}

static void
set(struct bare *b, uint64_t off, uint64_t nr, enum map_change change,
    uint64_t host_off)
{
    struct map_cursor c = prepare(b, off);

    map_set(&c, off, nr * b->img->cluster_size, change, host_off);
    map_done(&c);
}

/* Clusters with something in them. */
static uint64_t
take(struct bare *b, uint64_t want)
{
    struct qcow2_error err;
    struct alloc_run run;

    EXPECT_OK(alloc_clusters(b->img, want, &run, &err), &err);
    EXPECT(run.nr_clusters == want, "%llu clusters",
           (unsigned long long)run.nr_clusters);
    EXPECT_OK(io_zero(b->img->io, run.host_off, want * C, 0, &err), &err);
    return run.host_off;
}

static uint64_t
refcount_after_flush(struct bare *b, uint64_t host_off)
{
    struct qcow2_error err;
    uint64_t n, nr = 1;

    EXPECT_OK(flush_run(b->img, &err), &err);
    EXPECT_OK(refcount_read(b->img, host_off / C, &nr, &n, &err), &err);
    return n;
}

static void
every_kind_is_mapped(void **state)
{
    struct mapping m;
    struct bare b;

    (void)state;
    bare_open(&b, IMAGE);
    m = look_up(&b, 3 * C + 5, 1000);
    EXPECT(m.kind == MAP_DATA && m.has_host && m.copied && m.nr_bytes == 1000
           && m.host_off % C == 5, "data");
    EXPECT(look_up(&b, 8 * C, 100 * C).nr_bytes == 2 * C, "run of data");
    m = look_up(&b, 10 * C, 9 * C);
    EXPECT(m.kind == MAP_ZERO && !m.has_host && m.nr_bytes == 2 * C, "zero");
    m = look_up(&b, 12 * C + 1, 9 * C);
    EXPECT(m.kind == MAP_ZERO && m.has_host && m.copied
           && m.nr_bytes == 2 * C - 1, "zero with a place");
    m = look_up(&b, 14 * C + 100, 9 * C);
    EXPECT(m.kind == MAP_COMPRESSED && m.skip == 100 && !m.copied
           && m.nr_bytes == C - 100, "compressed");
    m = look_up(&b, 16 * C, 9 * C);
    EXPECT(m.kind == MAP_UNALLOCATED && m.nr_bytes == 9 * C, "unallocated");
    m = look_up(&b, 2 * TABLE + 7, 3 * TABLE);
    EXPECT(m.kind == MAP_UNALLOCATED && m.nr_bytes == TABLE - 7, "no table");
    bare_close(&b);
}

static void
pieces_end_with_the_slice(void **state)
{
    struct bare b;

    (void)state;
    bare_open(&b, IMAGE);
    EXPECT(map_piece(&b.img->active, 0) == TABLE, "start");
    EXPECT(map_piece(&b.img->active, TABLE - 1) == 1, "end");
    bare_close(&b);
    bare_open(&b, "cluster 64K; size 1G");
    /* 8192 entries in slices of 512. */
    EXPECT(map_piece(&b.img->active, 0) == UINT64_C(512) << 16, "large");
    bare_close(&b);
}

static void
what_entries_pointed_to_is_freed(void **state)
{
    struct mapping old, zero, packed;
    uint64_t host_off;
    struct bare b;

    (void)state;
    bare_open(&b, IMAGE);
    old = look_up(&b, 0, C);
    zero = look_up(&b, 12 * C, C);
    packed = look_up(&b, 15 * C, C);
    host_off = take(&b, 2);
    set(&b, 0, 2, MAP_TO_DATA, host_off);
    EXPECT(look_up(&b, 0, 2 * C).host_off == host_off, "not mapped");
    EXPECT(refcount_after_flush(&b, old.host_off) == 0, "data not freed");
    EXPECT(refcount_after_flush(&b, host_off) == 1, "freed");
    set(&b, 12 * C, 1, MAP_TO_ZERO, 0);
    EXPECT(refcount_after_flush(&b, zero.host_off) == 0, "place not freed");
    set(&b, 14 * C, 2, MAP_TO_ZERO_KEEP, 0);
    EXPECT(refcount_after_flush(&b, packed.host_off) == 0, "not freed");
    set(&b, 2 * C, 1, MAP_TO_UNALLOCATED, 0);
    EXPECT(look_up(&b, 2 * C, C).kind == MAP_UNALLOCATED, "mapped");
    bare_close(&b);
}

static void
what_is_kept_is_not_freed(void **state)
{
    struct mapping data, zero, m;
    struct bare b;

    (void)state;
    bare_open(&b, IMAGE);
    data = look_up(&b, 0, C);
    set(&b, 0, 1, MAP_TO_ZERO_KEEP, 0);
    m = look_up(&b, 0, C);
    EXPECT(m.kind == MAP_ZERO && m.host_off == data.host_off && m.copied,
           "place lost");
    EXPECT(refcount_after_flush(&b, data.host_off) == 1, "freed");
    zero = look_up(&b, 12 * C, C);
    set(&b, 12 * C, 2, MAP_TO_DATA, zero.host_off);
    EXPECT(refcount_after_flush(&b, zero.host_off) == 1, "freed");
    EXPECT(look_up(&b, 12 * C, C).kind == MAP_DATA, "not data");
    bare_close(&b);
}

static void
tables_come_where_there_are_none(void **state)
{
    struct view *v;
    struct bare b;
    uint64_t nr_bytes;

    (void)state;
    bare_open(&b, IMAGE);
    v = &b.img->active;
    EXPECT(map_table_absent(v, TABLE + 5, &nr_bytes)
           && nr_bytes == TABLE - 5, "there");
    set(&b, TABLE, 1, MAP_TO_DATA, take(&b, 1));
    EXPECT(!map_table_absent(v, TABLE, &nr_bytes), "absent");
    EXPECT(look_up(&b, TABLE + C, C).kind == MAP_UNALLOCATED, "not empty");
    bare_close(&b);
}

/* Only the active disk gets a copy. */
static void
shared_tables_are_copied_before_they_change(void **state)
{
    uint64_t before, old;
    struct mapping m;
    struct bare b;

    (void)state;
    bare_open(&b, IMAGE "snapshot 1 one");
    before = b.img->active.l1[0];
    EXPECT(!(before & ENTRY_COPIED), "not shared");
    m = look_up(&b, 0, C);
    EXPECT(!m.copied, "written in place");
    old = m.host_off;
    set(&b, 0, 1, MAP_TO_DATA, take(&b, 1));
    EXPECT(b.img->active.l1[0] & ENTRY_COPIED
           && (b.img->active.l1[0] ^ before) & L1_OFFSET_MASK, "not copied");
    EXPECT(refcount_after_flush(&b, old) == 1, "taken from the snapshot");
    EXPECT(!look_up(&b, C, C).copied, "what the copy maps is shared");
    bare_close(&b);
}

static void
changed_l1_entries_are_taken_once(void **state)
{
    struct l1_change change;
    struct qcow2_error err;
    struct map_cursor c;
    struct view *v;
    struct bare b;

    (void)state;
    bare_open(&b, IMAGE);
    v = &b.img->active;
    EXPECT_OK(l1_take(v, &change, &err), &err);
    EXPECT(change.nr == 0, "%u entries", change.nr);
    for (unsigned i = 3; i > 0; i--) {
        c = prepare(&b, i * TABLE);
        map_done(&c);
    }
    EXPECT_OK(l1_take(v, &change, &err), &err);
    EXPECT(change.nr == 3 && change.indexes[0] == 1 && change.indexes[2] == 3
           && be64_get(change.entries[1]) == v->l1[2], "taken");
    l1_give_back(v, &change);
    EXPECT_OK(l1_take(v, &change, &err), &err);
    EXPECT(change.nr == 3, "%u given back", change.nr);
    l1_give_back(v, &change);
    bare_close(&b);
}

static void
damaged_entries_are_refused(void **state)
{
    static const char *const pokes[] = {
        "l2[0] | 2", "l2[0] | 0x100000000000000", "l2[0] | 512",
        "l2[0] = 0x8000000000000000 + @end",
        "l2[0] = 0x80fffffffffff000", "l2[0] = 0x40ffffffffffffff",
        "l1[0] | 1", "l1[0] = @end + @cluster", "l1[0] | 512",
    };

    (void)state;
    for (unsigned i = 0; i < sizeof pokes / sizeof pokes[0]; i++) {
        struct qcow2_error err;
        struct map_cursor c;
        struct mapping m;
        char recipe[256];
        struct bare b;
        int r;

        snprintf(recipe, sizeof recipe, "cluster 4K; size 16M; data 0 1;"
                 "poke %s", pokes[i]);
        bare_open(&b, recipe);
        c = map_cursor(&b.img->active);
        r = map_find(&c, 0, 512, &m, &err);
        EXPECT(r == -1 && err.errnum == EIO, "looked up");
        EXPECT(image_check_state(b.img, &err) == -1, "not damaged");
        if (pokes[i][1] == '1')
            EXPECT(map_prepare(&c, 0, &err) == -1, "prepared");
        map_done(&c);
        bare_drop(&b);
    }
}

/* Two slices of one table, each a row: 512 clusters one behind the other. */
enum { LARGE = 8192, WINDOW = 512 * LARGE };

#define ROWS "cluster 8K; size 8M; data 0-1023 1;"

static uint64_t
slice_key(const struct bare *b, unsigned window)
{
    return (b->img->active.l1[0] & L1_OFFSET_MASK) + window * 4096;
}

/* Does a lookup do without the slice? Right it is in any case. */
static bool
is_row(struct bare *b, unsigned window, bool copied)
{
    uint64_t key = slice_key(b, window);
    struct mapping first, m;

    first = look_up(b, (uint64_t)window * WINDOW + 5 * LARGE, 100);
    cache_drop(b->img->meta, b->img, key);
    m = look_up(b, (uint64_t)window * WINDOW + 100 * LARGE + 3, 2 * WINDOW);
    EXPECT(m.kind == MAP_DATA && m.copied == copied
           && m.host_off == first.host_off + 95 * LARGE + 3
           && m.nr_bytes == 412 * LARGE - 3, "mapped wrongly");
    return !cache_has(b->img->meta, b->img, key);
}

static void
rows_need_no_slice(void **state)
{
    struct bare b;

    (void)state;
    bare_open(&b, ROWS);
    EXPECT(is_row(&b, 0, true), "the slice is read");
    EXPECT(is_row(&b, 1, true), "the slice is read");
    bare_close(&b);
    bare_open(&b, ROWS "zero 600;");
    look_up(&b, WINDOW, LARGE);
    cache_drop(b.img->meta, b.img, slice_key(&b, 1));
    EXPECT(look_up(&b, 599 * LARGE, 3 * LARGE).nr_bytes == LARGE, "no row");
    EXPECT(look_up(&b, 600 * LARGE, LARGE).kind == MAP_ZERO, "no row");
    bare_close(&b);
}

static void
neighbours_of_rows_are_noted_with_them(void **state)
{
    uint64_t host_off;
    struct bare b;

    (void)state;
    bare_open(&b, ROWS);
    look_up(&b, 0, LARGE);
    look_up(&b, WINDOW, LARGE);
    EXPECT(!cache_has(b.img->meta, b.img, slice_key(&b, 1)), "read again");
    bare_close(&b);
    /* Not what the disk still has of one that changed. */
    bare_open(&b, ROWS);
    host_off = take(&b, 1);
    set(&b, WINDOW, 1, MAP_TO_DATA, host_off);
    EXPECT(is_row(&b, 0, true), "no row");
    EXPECT(look_up(&b, WINDOW, LARGE).host_off == host_off, "from the disk");
    bare_close(&b);
}

static void
slices_without_anything_are_rows(void **state)
{
    struct mapping m;
    struct bare b;

    (void)state;
    bare_open(&b, "cluster 8K; size 8M; data 1 1;");
    look_up(&b, WINDOW, LARGE);
    cache_drop(b.img->meta, b.img, slice_key(&b, 1));
    m = look_up(&b, WINDOW + 5, 2 * WINDOW);
    EXPECT(m.kind == MAP_UNALLOCATED && m.nr_bytes == WINDOW - 5, "mapped");
    EXPECT(!cache_has(b.img->meta, b.img, slice_key(&b, 1)), "read again");
    bare_close(&b);
}

static void
rows_end_before_they_change(void **state)
{
    uint64_t host_off;
    struct qcow2_error err;
    struct map_cursor c;
    struct bare b;

    (void)state;
    bare_open(&b, ROWS);
    EXPECT(is_row(&b, 0, true) && is_row(&b, 1, true), "no rows");
    host_off = take(&b, 1);
    set(&b, 7 * LARGE, 1, MAP_TO_DATA, host_off);
    EXPECT(look_up(&b, 7 * LARGE, LARGE).host_off == host_off, "as before");
    EXPECT_OK(flush_run(b.img, &err), &err);
    cache_drop(b.img->meta, b.img, slice_key(&b, 0));
    EXPECT(look_up(&b, 7 * LARGE, LARGE).host_off == host_off, "as before");
    EXPECT(is_row(&b, 1, true), "the other slice did not change");
    /* Not noted again once somebody is about to change it. */
    c = prepare(&b, WINDOW);
    map_done(&c);
    EXPECT(!is_row(&b, 1, true), "noted again");
    bare_close(&b);
}

/* Of a shared table COPIED flags say nothing, of its copy they would. */
static void
rows_end_with_their_table(void **state)
{
    struct bare b;

    (void)state;
    bare_open(&b, ROWS "snapshot 1 one;");
    EXPECT(is_row(&b, 1, false), "no row");
    set(&b, 0, 1, MAP_TO_UNALLOCATED, 0);
    EXPECT(!is_row(&b, 1, false), "the copy has a row of the table");
    bare_close(&b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_is_mapped),
        cmocka_unit_test(pieces_end_with_the_slice),
        cmocka_unit_test(what_entries_pointed_to_is_freed),
        cmocka_unit_test(what_is_kept_is_not_freed),
        cmocka_unit_test(tables_come_where_there_are_none),
        cmocka_unit_test(shared_tables_are_copied_before_they_change),
        cmocka_unit_test(changed_l1_entries_are_taken_once),
        cmocka_unit_test(damaged_entries_are_refused),
        cmocka_unit_test(rows_need_no_slice),
        cmocka_unit_test(neighbours_of_rows_are_noted_with_them),
        cmocka_unit_test(slices_without_anything_are_rows),
        cmocka_unit_test(rows_end_before_they_change),
        cmocka_unit_test(rows_end_with_their_table),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
