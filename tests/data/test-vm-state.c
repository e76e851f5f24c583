/* SPDX-License-Identifier: BSD-3-Clause */
/* test-vm-state.c: the saved states of virtual machines are stored with a
 * snapshot, read again, and given up with it.
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#include "audit.h"
#include "disk/open.h"
#include "expect.h"
#include "format/format.h"
#include "io-mem.h"
#include "oracle.h"
#include "rig.h"
#include "snapshots.h"
#include "tmpdir.h"

/* A stream that ends, or fails, somewhere. */
struct stream {
    uint64_t seed, off, end;
    uint64_t fails_at; /* 0: never */
    int errnum;
    size_t portion;
};

static long
read_stream(void *opaque, void *buf, size_t nr_bytes)
{
    struct stream *s = opaque;

    if (s->fails_at && s->off >= s->fails_at) {
        errno = s->errnum;
        return -1;
    }
    if (nr_bytes > s->end - s->off)
        nr_bytes = s->end - s->off;
    if (nr_bytes > s->portion)
        nr_bytes = s->portion;
    pattern_fill(buf, nr_bytes, s->seed, s->off);
    s->off += nr_bytes;
    return nr_bytes;
}

static int
save(struct rig *r, const char *name, struct stream *s,
     struct qcow2_error *err)
{
    struct qcow2_snapshot_create_options o = {
        .vm_state = read_stream, .opaque = s,
    };

    return qcow2_snapshot_create(r->play.disk, name, &o, err);
}

static void
start(struct rig *r, const char *recipe)
{
    expect_case("%s", recipe);
    rig_init(r, recipe, 0);
    rig_open(r);
}

static void
finish(struct rig *r)
{
    const char *path = tmpdir_path("image");
    struct qcow2_error err;
    const unsigned char *bytes;
    uint64_t nr_bytes;
    struct audit a;

    EXPECT_OK(qcow2_close(r->play.disk, &err), &err);
    bytes = mem_bytes(r->mem, &nr_bytes);
    audit_image(bytes, nr_bytes, &a);
    EXPECT(audit_is_clean(&a), "closed image: %u corruptions (%s), %u "
           "without COPIED, %u leaks%s", a.nr_corruptions, a.first,
           a.nr_uncopied, a.nr_leaks, a.dirty ? ", dirty" : "");
    mem_save(r->mem, path);
    oracle_expect_clean(path);
    rig_end(r);
    rig_free(r);
}

static struct qcow2_disk *
open_snapshot(struct rig *r, const char *name)
{
    struct qcow2_error err;
    struct qcow2_disk *s = qcow2_open_snapshot(r->play.disk, name, &err);

    EXPECT(s, "%s", err.text);
    return s;
}

static void
expect_state(struct qcow2_disk *s, uint64_t seed, uint64_t off,
             uint64_t nr_bytes)
{
    unsigned char *got = malloc(2 * nr_bytes + 1), *want = got + nr_bytes;
    struct qcow2_error err;

    if (!got)
        abort();
    EXPECT_OK(qcow2_read_vm_state(s, got, nr_bytes, off, &err), &err);
    pattern_fill(want, nr_bytes, seed, off);
    expect_same("VM state", got, want, nr_bytes, off);
    free(got);
}

static void
store_states(const char *recipe, const uint64_t *lengths, unsigned nr)
{
    struct rig r;

    start(&r, recipe);
    for (unsigned i = 0; i < nr; i++) {
        struct stream in = { .seed = i + 1, .end = lengths[i],
                             .portion = i % 2 ? 777 : SIZE_MAX };
        struct qcow2_snapshot info;
        struct qcow2_error err;
        struct qcow2_disk *s;

        EXPECT_OK(save(&r, "s", &in, &err), &err);
        snapshot_get(r.play.disk, 1, &info);
        assert_int_equal(info.vm_state_size, lengths[i]);
        assert_int_equal(info.disk_size, 3 << 20);
        s = open_snapshot(&r, "s");
        expect_state(s, in.seed, 0, lengths[i]);
        expect_state(s, in.seed, lengths[i] / 3, lengths[i] / 2);
        expect_state(s, in.seed, lengths[i] - 1, 1);
        play_verify(&r.play);
        EXPECT_OK(qcow2_close(s, &err), &err);
        EXPECT_OK(qcow2_snapshot_delete(r.play.disk, "s", &err), &err);
    }
    finish(&r);
}

static void
states_of_any_length_are_read_as_they_were_stored(void **state)
{
    /* An L2 table of clusters of 4 KiB covers 2 MiB, and one of extended
     * entries and 16 KiB 16 MiB; states are stored in portions of 1 MiB. */
    static const uint64_t lengths[] = {
        1, 4095, 4096, 4097, 1 << 20, (1 << 20) + 1, 2 << 20,
        (2 << 20) + 1, 7000001
    }, extended[] = { 513, (16 << 20) + 1 };

    (void)state;
    store_states("cluster 4K; size 3M; data 0-9 1; snapshot 1 before;"
                 "data 3 2", lengths, sizeof lengths / sizeof lengths[0]);
    store_states("extended-l2; cluster 16K; size 3M; subclusters 0 dzu 1;"
                 "snapshot 1 before; data 3 2", extended,
                 sizeof extended / sizeof extended[0]);
}

static void
reading_outside_of_a_state_is_refused(void **state)
{
    struct stream in = { .seed = 1, .end = 5000, .portion = SIZE_MAX };
    struct qcow2_error err;
    struct qcow2_disk *s;
    char buf[16];
    struct rig r;

    (void)state;
    start(&r, "cluster 4K; size 3M; data 0 1; snapshot 1 without");
    EXPECT_OK(save(&r, "with", &in, &err), &err);
    s = open_snapshot(&r, "with");
    assert_int_equal(qcow2_read_vm_state(s, buf, 16, 4985, &err), -1);
    assert_int_equal(err.errnum, EINVAL);
    assert_int_equal(qcow2_read_vm_state(s, buf, 16, UINT64_MAX - 7, &err),
                     -1);
    EXPECT_OK(qcow2_read_vm_state(s, buf, 16, 4984, &err), &err);
    EXPECT_OK(qcow2_close(s, &err), &err);
    s = open_snapshot(&r, "without");
    assert_int_equal(qcow2_read_vm_state(s, buf, 1, 0, &err), -1);
    assert_int_equal(err.errnum, EINVAL);
    EXPECT_OK(qcow2_close(s, &err), &err);
    assert_int_equal(qcow2_read_vm_state(r.play.disk, buf, 1, 0, &err), -1);
    assert_int_equal(err.errnum, EINVAL);
    finish(&r);
}

static void
a_state_that_cannot_be_read_leaves_no_snapshot(void **state)
{
    static const struct stream streams[] = {
        { .end = 9000000, .fails_at = 1, .errnum = EPIPE, .portion = 999 },
        { .end = 9000000, .fails_at = 5000000, .errnum = EPERM,
          .portion = SIZE_MAX },
        { .end = 9000000, .fails_at = 5000000, .portion = 4096 },
    };
    struct rig r;

    (void)state;
    start(&r, "cluster 4K; size 3M; data 0-9 1; snapshot 1 before; data 3 2");
    for (unsigned i = 0; i < sizeof streams / sizeof streams[0]; i++) {
        struct stream in = streams[i];
        struct qcow2_error err;

        assert_int_equal(save(&r, "s", &in, &err), -1);
        EXPECT(in.errnum == 0 || err.errnum == in.errnum, "errno %d: %s",
               err.errnum, err.text);
        assert_int_equal(qcow2_get_nr_snapshots(r.play.disk), 1);
        play_verify(&r.play);
    }
    finish(&r);
}

static void
states_stay_with_the_snapshot_when_it_is_applied(void **state)
{
    struct stream in = { .seed = 3, .end = 3000000, .portion = SIZE_MAX };
    struct qcow2_error err;
    struct qcow2_disk *s;
    struct rig r;

    (void)state;
    start(&r, "cluster 4K; size 3M; data 0-9 1");
    EXPECT_OK(save(&r, "s", &in, &err), &err);
    EXPECT_OK(qcow2_snapshot_apply(r.play.disk, "s", &err), &err);
    EXPECT_OK(qcow2_resize(r.play.disk, 12 << 20, false, &err), &err);
    EXPECT_OK(qcow2_pwrite(r.play.disk, "x", 1, 11 << 20, 0, &err), &err);
    EXPECT_OK(qcow2_snapshot_apply(r.play.disk, "s", &err), &err);
    play_verify(&r.play);
    s = open_snapshot(&r, "s");
    expect_state(s, 3, 0, 3000000);
    EXPECT_OK(qcow2_close(s, &err), &err);
    finish(&r);
}

/* Sparse states, compressed ones, and those behind clusters that are not
 * there, as others may have stored them. */
static void
states_of_other_programs_are_read(void **state)
{
    unsigned char got[4 * 4096], zeroes[4096] = { 0 };
    struct qcow2_error err;
    struct qcow2_disk *s;
    struct rig r;

    (void)state;
    start(&r, "cluster 4K; size 3M; data 0 1; snapshot 1 s vmstate=2");
    s = open_snapshot(&r, "s");
    EXPECT_OK(qcow2_read_vm_state(s, got, 2 * 4096, 0, &err), &err);
    pattern_fill(got + 2 * 4096, 2 * 4096, 99,
                 2 * UINT64_C(2097152)); /* behind the disk's two tables */
    expect_same("VM state", got, got + 2 * 4096, 2 * 4096, 0);
    EXPECT_OK(qcow2_close(s, &err), &err);
    finish(&r);

    start(&r, "cluster 4K; size 3M; data 0 1; snapshot 1 s vmstate=2;"
              "poke snapshot[0].vm_state_size = 9000000");
    /* The 64-bit size in the extra data counts. */
    s = open_snapshot(&r, "s");
    assert_int_equal(qcow2_read_vm_state(s, got, 1, 2 * 4096, &err), -1);
    EXPECT_OK(qcow2_close(s, &err), &err);
    finish(&r);

    start(&r, "version 2; cluster 4K; size 3M; data 0 1; snapshot 1 s "
              "vmstate=2; poke snapshot[0].vm_state_size = 16384");
    s = open_snapshot(&r, "s");
    EXPECT_OK(qcow2_read_vm_state(s, got, 4096, 3 * 4096, &err), &err);
    expect_same("hole", got, zeroes, 4096, 0);
    EXPECT_OK(qcow2_close(s, &err), &err);
    EXPECT_OK(qcow2_snapshot_delete(r.play.disk, "s", &err), &err);
    finish(&r);
}

/* The L1 table has room for one L2 table of state, which maps 2 MiB. */
static void
a_state_larger_than_its_l1_table_is_refused(void **state)
{
    static const struct {
        const char *size;
        bool fits;
    } sizes[] = {
        { "2097152", true }, { "2097153", false },
        { "0x4000000000000000", false }, { "0xffffffffffffffff", false },
    };

    (void)state;
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct qcow2_error err;
        struct qcow2_disk *s;
        uint64_t nr_bytes;
        char recipe[200];
        struct rig r;
        bool zero;
        int want = sizes[i].fits ? 0 : -1;

        snprintf(recipe, sizeof recipe, "cluster 4K; size 3M; data 0 1;"
                 "snapshot 1 s vmstate=2;"
                 "poke snapshot[0].extra_vm_state_size = %s", sizes[i].size);
        start(&r, recipe);
        s = open_snapshot(&r, "s");
        EXPECT(qcow2_map_vm_state(s, 0, &nr_bytes, &zero, &err) == want,
               "map");
        EXPECT(sizes[i].fits || err.errnum == EIO, "%d", err.errnum);
        EXPECT(!sizes[i].fits || (!zero && nr_bytes == 2 * 4096), "map");
        EXPECT(qcow2_read_vm_state(s, recipe, 1, 0, &err) == want, "read");
        EXPECT(qcow2_read_vm_state(s, recipe, 1, 2097152, &err) == -1,
               "read past the end");
        if (sizes[i].fits) {
            EXPECT_OK(qcow2_map_vm_state(s, 2 * 4096, &nr_bytes, &zero, &err),
                      &err);
            EXPECT(zero && nr_bytes <= 2097152 - 2 * 4096, "map");
            EXPECT(qcow2_map_vm_state(s, 2097152, &nr_bytes, &zero, &err)
                   == -1, "map past the end");
        }
        EXPECT_OK(qcow2_close(s, &err), &err);
        /* It can be deleted all the same. */
        EXPECT_OK(qcow2_snapshot_delete(r.play.disk, "s", &err), &err);
        finish(&r);
    }
}

/* The sizes in the first entry of the snapshot table. */
static void
set_state_size(struct mem *m, uint64_t nr_bytes)
{
    struct io *io = io_mem_open(m, false);
    be64 size = be64_make(nr_bytes);
    be32 size32 = be32_make(nr_bytes);
    struct disk_header h;
    uint64_t off;

    assert_int_equal(io_pread(io, &h, sizeof h, 0, NULL), 0);
    off = be64_get(h.snapshots_offset);
    assert_int_equal(io_pwrite(io, &size32, sizeof size32,
                               off + offsetof(struct disk_snapshot,
                                              vm_state_size), NULL), 0);
    assert_int_equal(io_pwrite(io, &size, sizeof size,
                               off + sizeof(struct disk_snapshot), NULL), 0);
    io_close(io);
}

static void
read_state(struct mem *m, const char *name, unsigned char *buf,
           size_t nr_bytes)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_disk *disk, *s;
    struct qcow2_error err;

    options.readonly = true;
    disk = disk_open_io(io_mem_open(m, true), "image", &options, &err);
    EXPECT(disk, "%s", err.text);
    s = qcow2_open_snapshot(disk, name, &err);
    EXPECT(s, "%s", err.text);
    EXPECT_OK(qcow2_read_vm_state(s, buf, nr_bytes, 0, &err), &err);
    EXPECT_OK(qcow2_close(s, &err), &err);
    EXPECT_OK(qcow2_close(disk, &err), &err);
}

static void
clusters_behind_the_disk_without_a_size_are_taken_along(void **state)
{
    enum { NR_BYTES = 3 * 4096 };
    unsigned char want[NR_BYTES], got[NR_BYTES];
    struct qcow2_snapshot_create_options o = { .date_sec = 1 };
    struct qcow2_error err;
    struct rig r;

    (void)state;
    expect_case("no size");
    rig_init(&r, "cluster 4K; size 2M; data 0-9 1;"
             "snapshot 1 first vmstate=3 extra=24; data 2 3", 0);
    rig_start(&r);
    read_state(r.mem, "first", want, NR_BYTES);
    set_state_size(r.mem, 0);
    r.play.disk = rig_open_disk(&r, io_mem_open(r.mem, false));
    EXPECT_OK(qcow2_snapshot_apply(r.play.disk, "first", &err), &err);
    EXPECT_OK(qcow2_snapshot_create(r.play.disk, "second", &o, &err), &err);
    EXPECT_OK(qcow2_snapshot_delete(r.play.disk, "first", &err), &err);
    EXPECT_OK(qcow2_close(r.play.disk, &err), &err);
    set_state_size(r.mem, NR_BYTES);
    read_state(r.mem, "second", got, NR_BYTES);
    expect_same("VM state", got, want, NR_BYTES, 0);
    mem_save(r.mem, tmpdir_path("image"));
    oracle_expect_clean(tmpdir_path("image"));
    r.play.disk = NULL;
    rig_end(&r);
    rig_free(&r);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(states_of_any_length_are_read_as_they_were_stored),
        cmocka_unit_test(reading_outside_of_a_state_is_refused),
        cmocka_unit_test(a_state_that_cannot_be_read_leaves_no_snapshot),
        cmocka_unit_test(states_stay_with_the_snapshot_when_it_is_applied),
        cmocka_unit_test(states_of_other_programs_are_read),
        cmocka_unit_test(a_state_larger_than_its_l1_table_is_refused),
        cmocka_unit_test(
            clusters_behind_the_disk_without_a_size_are_taken_along),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
