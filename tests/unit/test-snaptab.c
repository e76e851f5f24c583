/* SPDX-License-Identifier: BSD-3-Clause */
/* test-snaptab.c: what of a snapshot table is taken, refused and found. */
#include "format/snaptab.h"

#include <errno.h>
#include <stdlib.h>

#include "builder.h"
#include "expect.h"
#include "io-fault.h"
#include "io-mem.h"
#include "oracle.h"
#include "tmpdir.h"

static int
read_from(struct io *io, struct snapshot_table *t, struct qcow2_error *err)
{
    struct header h;
    int r;

    EXPECT_OK(header_read(io, &h, err), err);
    r = snaptab_read(io, &h, t, err);
    header_free(&h);
    io_close(io);
    return r;
}

static int
read_recipe(const char *recipe, struct snapshot_table *t,
            struct qcow2_error *err)
{
    struct builder *b = builder_new();
    const unsigned char *bytes;
    size_t nr_bytes;
    struct mem *m;
    int r;

    expect_case("%s", recipe);
    builder_add(b, "%s", recipe);
    bytes = builder_bytes(b, &nr_bytes);
    m = mem_new(bytes, nr_bytes);
    r = read_from(io_mem_open(m, true), t, err);
    mem_free(m);
    builder_free(b);
    return r;
}

static void
accept(const char *recipe, struct snapshot_table *t)
{
    struct qcow2_error err;

    EXPECT_OK(read_recipe(recipe, t, &err), &err);
}

static void
refuse(const char *recipe, const char *text)
{
    struct qcow2_error err = { 0 };
    struct snapshot_table t;

    EXPECT(read_recipe(recipe, &t, &err) == -1, "was accepted");
    EXPECT(err.errnum == EIO && strstr(err.text, text), "errno %d: %s",
           err.errnum, err.text);
    assert_null(t.snapshots);
}

static void
test_no_snapshots_need_no_table(void **state)
{
    struct snapshot_table t;

    (void)state;
    accept("size 1M; poke header.snapshots_offset = 12345", &t);
    assert_int_equal(t.nr, 0);
    snaptab_free(&t);
}

static void
test_entries_are_decoded(void **state)
{
    struct snapshot_table t;

    (void)state;
    accept("cluster 4K; size 1M; data 0-9; snapshot 1 first;"
           "data 5; snapshot 2 second-longer-name vmstate=3", &t);
    assert_int_equal(t.nr, 2);
    assert_string_equal(t.snapshots[0].id, "1");
    assert_string_equal(t.snapshots[0].name, "first");
    assert_string_equal(t.snapshots[1].id, "2");
    assert_string_equal(t.snapshots[1].name, "second-longer-name");
    assert_int_equal(t.snapshots[0].date_sec, 1600000000);
    assert_int_equal(t.snapshots[0].date_nsec, 500);
    assert_int_equal(t.snapshots[0].vm_clock_nsec, 7000);
    assert_int_equal(t.snapshots[0].vm_state_size, 0);
    assert_int_equal(t.snapshots[1].vm_state_size, 3 * 4096);
    assert_int_equal(t.snapshots[0].icount, UINT64_MAX);
    assert_true(t.snapshots[0].has_disk_size);
    assert_int_equal(t.snapshots[0].disk_size, 1 << 20);
    /* 40 + 16 + 1 + 5 and 40 + 16 + 1 + 18, each padded to 8 */
    assert_int_equal(t.nr_bytes, 64 + 80);
    snaptab_free(&t);
}

static void
test_disk_size_is_the_snapshots_own(void **state)
{
    struct snapshot_table t;

    (void)state;
    accept("size 1M; snapshot 1 s size=2M", &t);
    assert_int_equal(t.snapshots[0].disk_size, 2 << 20);
    snaptab_free(&t);
}

static void
test_without_disk_size_it_is_the_images(void **state)
{
    struct snapshot_table t;

    (void)state;
    accept("version 2; size 3M; snapshot 1 s", &t);
    assert_false(t.snapshots[0].has_disk_size);
    assert_int_equal(t.snapshots[0].disk_size, 3 << 20);
    assert_int_equal(t.snapshots[0].extra_len, 0);
    snaptab_free(&t);
    accept("size 3M; snapshot 1 s size=1M extra=8", &t);
    assert_false(t.snapshots[0].has_disk_size);
    assert_int_equal(t.snapshots[0].disk_size, 3 << 20);
    snaptab_free(&t);
    /* Half a field is none. */
    accept("size 3M; snapshot 1 s size=1M extra=12", &t);
    assert_false(t.snapshots[0].has_disk_size);
    snaptab_free(&t);
}

static void
test_64_bit_vm_state_size_wins(void **state)
{
    struct snapshot_table t;

    (void)state;
    accept("size 1M; snapshot 1 s; poke snapshot[0].vm_state_size = 0;"
           "poke snapshot[0].extra_vm_state_size = 0x123456789a", &t);
    assert_int_equal(t.snapshots[0].vm_state_size, 0x123456789a);
    snaptab_free(&t);
    accept("version 2; size 1M; snapshot 1 s;"
           "poke snapshot[0].vm_state_size = 77", &t);
    assert_int_equal(t.snapshots[0].vm_state_size, 77);
    snaptab_free(&t);
}

static void
test_icount_and_unknown_extra_data_are_kept(void **state)
{
    unsigned char unknown[1024 - 24];
    struct snapshot_table t;

    (void)state;
    accept("size 1M; snapshot 1 s extra=24; poke u64[@snapshots+56] = 42",
           &t);
    assert_int_equal(t.snapshots[0].icount, 42);
    snaptab_free(&t);
    accept("size 1M; snapshot 1 s extra=1024; snapshot 2 t", &t);
    assert_int_equal(t.snapshots[0].extra_len, 1024);
    memset(unknown, 0xa5, sizeof unknown);
    assert_memory_equal(t.snapshots[0].extra + 24, unknown, sizeof unknown);
    assert_string_equal(t.snapshots[1].name, "t");
    snaptab_free(&t);
}

static void
test_too_much_extra_data_is_refused(void **state)
{
    (void)state;
    refuse("size 1M; snapshot 1 s extra=1025", "limit");
    refuse("size 1M; snapshot 1 s;"
           "poke snapshot[0].extra_data_size = 0xffffffff", "limit");
}

static void
test_names_may_hold_any_byte_but_zero(void **state)
{
    struct snapshot_table t;

    (void)state;
    accept("size 1M; snapshot 1 \x1b[2J\xff\x01", &t);
    assert_string_equal(t.snapshots[0].name, "\x1b[2J\xff\x01");
    snaptab_free(&t);
    /* id "1", name "x": the poke makes the name longer than it was */
    refuse("size 1M; snapshot 1 x; poke snapshot[0].name_size = 2",
           "zero byte");
    refuse("size 1M; snapshot 1 x; poke snapshot[0].id_size = 4",
           "zero byte");
}

static void
test_empty_ids_and_names_are_taken(void **state)
{
    struct snapshot_table t;

    (void)state;
    accept("size 1M; snapshot 1 x; poke snapshot[0].name_size = 0;"
           "poke snapshot[0].id_size = 0", &t);
    assert_string_equal(t.snapshots[0].id, "");
    assert_string_equal(t.snapshots[0].name, "");
    snaptab_free(&t);
}

static void
test_l1_tables_must_be_sound(void **state)
{
    (void)state;
    refuse("size 1M; snapshot 1 s; poke snapshot[0].l1_size = 0x400001",
           "limit");
    refuse("size 1M; snapshot 1 s; poke snapshot[0].l1_size = 0xffffffff",
           "limit");
    refuse("size 1M; snapshot 1 s; poke snapshot[0].l1_size = 0", "too few");
    refuse("size 1M; snapshot 1 s;"
           "poke snapshot[0].extra_disk_size = 0xffffffffffffffff",
           "too few");
    refuse("size 1M; snapshot 1 s; poke snapshot[0].l1_table_offset = @end",
           "inside");
    refuse("size 1M; snapshot 1 s; poke snapshot[0].l1_table_offset = 0",
           "start of a cluster");
    refuse("size 1M; snapshot 1 s; poke snapshot[0].l1_table_offset + 8",
           "start of a cluster");
    refuse("size 1M; snapshot 1 s;"
           "poke snapshot[0].l1_table_offset = 0xffffffffffff0000",
           "inside");
}

static void
test_damage_is_told_with_the_escaped_name(void **state)
{
    (void)state;
    refuse("size 1M; snapshot 1 a; snapshot 2 b\x1b;"
           "poke snapshot[1].l1_size = 0", "snapshot 2: 'b\\x1b'");
}

static void
test_snapshot_of_an_empty_disk_has_no_l1(void **state)
{
    struct snapshot_table t;

    (void)state;
    accept("size 1M; snapshot 1 s size=0; poke snapshot[0].l1_size = 0;"
           "poke snapshot[0].l1_table_offset = 0", &t);
    assert_int_equal(t.snapshots[0].disk_size, 0);
    snaptab_free(&t);
}

static void
test_table_must_end_inside_the_file(void **state)
{
    (void)state;
    refuse("cluster 512; size 32K; snapshot 1 s;"
           "poke snapshot[0].name_size = 0xffff", "does not end inside");
    refuse("cluster 512; size 32K; snapshot 1 s;"
           "poke snapshot[0].id_size = 0xffff", "does not end inside");
    /* What follows the only entry is none. */
    refuse("size 1M; snapshot 1 s; poke header.nb_snapshots = 2",
           "snapshot 2: ");
}

/* A table of many entries, each as large as it can be. */
static struct mem *
big_table(uint32_t nr, uint16_t name_len)
{
    uint64_t entry_len = (40 + 16 + 1 + name_len + 7) & ~UINT64_C(7);
    uint64_t at = 3 << 16, size = at + nr * entry_len;
    unsigned char *bytes = calloc(1, size);
    struct header_new hn = {
        .version = 3, .cluster_bits = 16, .refcount_order = 4,
        .size = 65536, .l1_size = 1, .l1_offset = 2 << 16,
        .reftable_offset = 1 << 16, .reftable_clusters = 1,
    };
    be64 table_offset = be64_make(at);
    be32 nr_entries = be32_make(nr);
    struct disk_snapshot d;
    struct mem *m;

    assert_non_null(bytes);
    header_encode(&hn, bytes, 65536, NULL);
    memcpy(bytes + HEADER_AT_SNAPSHOTS, &nr_entries, 4);
    memcpy(bytes + HEADER_AT_SNAPSHOTS + 4, &table_offset, 8);
    memset(&d, 0, sizeof d);
    d.l1_table_offset = be64_make(2 << 16);
    d.l1_size = be32_make(1);
    d.id_size = be16_make(1);
    d.name_size = be16_make(name_len);
    d.extra_data_size = be32_make(16);
    for (uint32_t i = 0; i < nr; i++, at += entry_len) {
        memcpy(bytes + at, &d, sizeof d);
        memset(bytes + at + 56, 'a' + i % 26, 1 + name_len);
    }
    m = mem_new(bytes, size);
    free(bytes);
    return m;
}

static void
test_large_tables_are_read_through_a_window(void **state)
{
    struct mem *m = big_table(300, 65000);
    struct snapshot_table t;
    struct qcow2_error err;

    (void)state;
    EXPECT_OK(read_from(io_mem_open(m, true), &t, &err), &err);
    assert_int_equal(t.nr, 300);
    for (uint32_t i = 0; i < t.nr; i++) {
        assert_int_equal(strlen(t.snapshots[i].name), 65000);
        assert_int_equal(t.snapshots[i].name[64999], 'a' + i % 26);
    }
    snaptab_free(&t);
    mem_free(m);
}

static void
test_table_larger_than_the_limit_is_refused(void **state)
{
    struct mem *m = big_table(1100, 65000); /* 71 MB */
    struct snapshot_table t;
    struct qcow2_error err;

    (void)state;
    assert_int_equal(read_from(io_mem_open(m, true), &t, &err), -1);
    EXPECT(err.errnum == EIO && strstr(err.text, "limit"), "%s", err.text);
    mem_free(m);
}

static void
test_most_snapshots_allowed_are_read(void **state)
{
    struct mem *m = big_table(MAX_SNAPSHOTS, 3);
    struct snapshot_table t;
    struct qcow2_error err;

    (void)state;
    EXPECT_OK(read_from(io_mem_open(m, true), &t, &err), &err);
    assert_int_equal(t.nr, MAX_SNAPSHOTS);
    snaptab_free(&t);
    mem_free(m);
}

static void
test_failed_reads_are_reported(void **state)
{
    struct mem *m = big_table(20, 65000);
    uint64_t fired;

    (void)state;
    for (uint64_t nth = 1;; nth++) {
        struct fault_plan plan = FAULT_PLAN_INIT;
        struct io *io = io_fault_new(io_mem_open(m, true), &plan);
        struct snapshot_table t;
        struct qcow2_error err;
        struct header h;
        int r;

        expect_case("read %d fails", (int)nth);
        EXPECT_OK(header_read(io, &h, &err), &err);
        fault_arm(&plan, FAULT_READ, nth, EIO, FAULT_ONCE);
        r = snaptab_read(io, &h, &t, &err);
        fired = fault_fired(&plan);
        EXPECT(r == (fired ? -1 : 0), "%d", r);
        if (r == 0)
            snaptab_free(&t);
        header_free(&h);
        io_close(io);
        if (!fired)
            break;
        assert_int_equal(err.errnum, EIO);
    }
    mem_free(m);
}

static void
expect_word(const struct snapshot_table *t, const char *word, long index,
            int errnum)
{
    struct qcow2_error err = { .errnum = 0 };
    long i = snaptab_find(t, word, &err);

    expect_case("%s", word);
    EXPECT(i == index && err.errnum == errnum, "%ld, errno %d: %s", i,
           err.errnum, err.text);
}

static void
test_words_that_mean_two_snapshots_are_refused(void **state)
{
    struct snapshot_table t;
    struct qcow2_error err;

    (void)state;
    accept("size 1M; snapshot 1 2; snapshot 2 1; snapshot 3 three;"
           "snapshot 4 4; snapshot 5 snapshot.id=1", &t);
    expect_word(&t, "1", -1, EINVAL);
    expect_word(&t, "2", -1, EINVAL);
    expect_word(&t, "3", 2, 0);
    expect_word(&t, "three", 2, 0);
    expect_word(&t, "4", 3, 0);
    expect_word(&t, "snapshot.id=1", 0, 0);
    expect_word(&t, "snapshot.name=1", 1, 0);
    expect_word(&t, "snapshot.id=2,snapshot.name=1", 1, 0);
    expect_word(&t, "snapshot.id=1,snapshot.name=1", -1, ENOENT);
    expect_word(&t, "snapshot.id=three", -1, ENOENT);
    expect_word(&t, "snapshot.name=3", -1, ENOENT);
    expect_word(&t, "snapshot.name=snapshot.id=1", 4, 0);
    expect_word(&t, "snapshot.id=", -1, ENOENT);
    assert_int_equal(snaptab_find(&t, "1", &err), -1);
    EXPECT(strstr(err.text, "the id '1' and the name '2'")
           && strstr(err.text, "the id '2' and the name '1'")
           && err.hints == QCOW2_HINT_WHICH_SNAPSHOT, "%s", err.text);
    assert_int_equal(snaptab_find(&t, "snapshot.name=3", &err), -1);
    assert_int_equal(err.hints, QCOW2_HINT_WHICH_SNAPSHOT);
    assert_int_equal(snaptab_find(&t, "snapshot.name=x", &err), -1);
    assert_int_equal(err.hints, 0);
    snaptab_free(&t);
}

static void
test_ids_are_no_numbers(void **state)
{
    struct snapshot_table t;
    struct qcow2_error err;

    (void)state;
    accept("size 1M; snapshot 01 a; snapshot x b", &t);
    assert_int_equal(snaptab_find(&t, "01", NULL), 0);
    assert_int_equal(snaptab_find(&t, "x", NULL), 1);
    assert_int_equal(snaptab_find(&t, "1", &err), -1);
    assert_int_equal(err.errnum, ENOENT);
    snaptab_free(&t);
}

static void
test_what_several_bear_is_not_guessed(void **state)
{
    struct snapshot_table t;
    struct qcow2_error err;

    (void)state;
    accept("size 1M; snapshot 1 same; snapshot 2 same; snapshot 9 a;"
           "snapshot 9 b", &t);
    assert_int_equal(snaptab_find(&t, "same", &err), -1);
    assert_int_equal(err.errnum, EINVAL);
    assert_non_null(strstr(err.text, "more than one"));
    assert_int_equal(snaptab_find(&t, "9", &err), -1);
    assert_int_equal(err.errnum, EINVAL);
    assert_int_equal(snaptab_find(&t, "2", NULL), 1);
    assert_int_equal(snaptab_find(&t, "b", NULL), 3);
    snaptab_free(&t);
}

static void
test_table_made_by_the_other_implementation_is_read(void **state)
{
    const char *path = tmpdir_path("image");
    struct snapshot_table t;
    struct qcow2_error err;
    struct mem *m;

    (void)state;
    oracle_or_skip();
    assert_int_equal(oracle_run("qemu-img create -q -f qcow2 %s 1M && "
                                "qemu-img snapshot -c one %s && "
                                "qemu-img snapshot -c two %s && "
                                "qemu-img resize -q %s 3M && "
                                "qemu-img snapshot -c three %s", path, path,
                                path, path, path), 0);
    m = mem_load(path);
    EXPECT_OK(read_from(io_mem_open(m, true), &t, &err), &err);
    assert_int_equal(t.nr, 3);
    assert_int_equal(snaptab_find(&t, "two", NULL), 1);
    assert_int_equal(snaptab_find(&t, "3", NULL), 2);
    assert_int_equal(t.snapshots[1].disk_size, 1 << 20);
    assert_int_equal(t.snapshots[2].disk_size, 3 << 20);
    assert_true(t.snapshots[0].date_sec > 1600000000);
    snaptab_free(&t);
    mem_free(m);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_snapshots_need_no_table),
        cmocka_unit_test(test_entries_are_decoded),
        cmocka_unit_test(test_disk_size_is_the_snapshots_own),
        cmocka_unit_test(test_without_disk_size_it_is_the_images),
        cmocka_unit_test(test_64_bit_vm_state_size_wins),
        cmocka_unit_test(test_icount_and_unknown_extra_data_are_kept),
        cmocka_unit_test(test_too_much_extra_data_is_refused),
        cmocka_unit_test(test_names_may_hold_any_byte_but_zero),
        cmocka_unit_test(test_empty_ids_and_names_are_taken),
        cmocka_unit_test(test_l1_tables_must_be_sound),
        cmocka_unit_test(test_damage_is_told_with_the_escaped_name),
        cmocka_unit_test(test_snapshot_of_an_empty_disk_has_no_l1),
        cmocka_unit_test(test_table_must_end_inside_the_file),
        cmocka_unit_test(test_large_tables_are_read_through_a_window),
        cmocka_unit_test(test_table_larger_than_the_limit_is_refused),
        cmocka_unit_test(test_most_snapshots_allowed_are_read),
        cmocka_unit_test(test_failed_reads_are_reported),
        cmocka_unit_test(test_words_that_mean_two_snapshots_are_refused),
        cmocka_unit_test(test_ids_are_no_numbers),
        cmocka_unit_test(test_what_several_bear_is_not_guessed),
        cmocka_unit_test(test_table_made_by_the_other_implementation_is_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
