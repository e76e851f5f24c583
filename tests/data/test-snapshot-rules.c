/* SPDX-License-Identifier: BSD-3-Clause */
/* test-snapshot-rules.c: what operations on snapshots refuse, keep and
 * promise: refcounts that are too narrow, names and ids, limits, VM state,
 * tables as older versions left them.
 */
#include <errno.h>
#include <stdlib.h>

#include "audit.h"
#include "contents.h"
#include "expect.h"
#include "oracle.h"
#include "rig.h"
#include "snapshots.h"
#include "tmpdir.h"

static const struct qcow2_snapshot_create_options plain = { 0 };

static void
start(struct rig *r, const char *recipe)
{
    expect_case("%s", recipe);
    rig_init(r, recipe, 0);
    rig_open(r);
}

/* Closes it; nothing is damaged or leaked. */
static void
expect_clean(struct rig *r)
{
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
}

static void
finish(struct rig *r)
{
    const char *path = tmpdir_path("image");

    expect_clean(r);
    mem_save(r->mem, path);
    oracle_expect_clean(path);
    rig_end(r);
    rig_free(r);
}

static void
create(struct rig *r, const char *name)
{
    struct qcow2_error err;

    EXPECT_OK(qcow2_snapshot_create(r->play.disk, name, &plain, &err), &err);
}

static void
expect_refused(int r, const struct qcow2_error *err, int errnum)
{
    EXPECT(r == -1 && err->errnum == errnum, "returned %d, errno %d: %s", r,
           r == -1 ? err->errnum : 0, r == -1 ? err->text : "");
    EXPECT(err->text[0], "no text");
}

static void
expect_bytes(struct mem *got, struct mem *want)
{
    const unsigned char *is, *was;
    uint64_t nr_is, nr_was;

    is = mem_bytes(got, &nr_is);
    was = mem_bytes(want, &nr_was);
    EXPECT(nr_is == nr_was, "the file's size changes");
    expect_same("file after a refusal", is, was, nr_is, 0);
}

/* Creating is refused, and leaves every byte of the file as it was. */
static void
expect_create_refused(struct rig *r, int errnum)
{
    struct mem *before = mem_copy(r->mem);
    struct qcow2_error err;

    expect_refused(qcow2_snapshot_create(r->play.disk, "one more", &plain,
                                         &err), &err, errnum);
    expect_bytes(r->mem, before);
    mem_free(before);
}

static void
refcounts_too_narrow_are_refused_before_anything_changes(void **state)
{
    static const struct {
        unsigned nr; /* of snapshots that there is room for */
        const char *recipe;
    } cases[] = {
        { 0, "refcount-bits 1; cluster 4K; size 1M; data 3 1" },
        { 0, "refcount-bits 1; cluster 4K; size 1M; zero-alloc 3" },
        { 2, "refcount-bits 2; cluster 4K; size 1M; data 3-9 1" },
        { 14, "refcount-bits 4; cluster 4K; size 4M; data 3 1; data 700 1" },
        /* Several compressed clusters lie in one host cluster. */
        { 0, "refcount-bits 2; cluster 4K; size 1M; compressed 0-1 1" },
        { 2, "refcount-bits 4; cluster 4K; size 1M; compressed 0-20 1" },
        { 50, "refcount-bits 8; cluster 4K; size 1M; compressed 0-200 1" },
    };

    (void)state;
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct qcow2_error err;
        struct contents was;
        struct rig r;

        start(&r, cases[i].recipe);
        for (unsigned n = 0; n < cases[i].nr; n++)
            create(&r, "room");
        contents_read(&was, r.play.disk);
        expect_create_refused(&r, ENOTSUP);
        contents_expect(r.play.disk, &was);
        contents_free(&was);
        EXPECT_OK(qcow2_pwrite(r.play.disk, "x", 1, 7, 0, &err), &err);
        finish(&r);
    }
}

static void
applying_is_refused_where_refcounts_are_too_narrow(void **state)
{
    struct qcow2_error err;
    struct mem *before;
    struct rig r;

    (void)state;
    start(&r, "refcount-bits 2; cluster 4K; size 1M; compressed 0-1 1;"
              "data 7 1");
    expect_create_refused(&r, ENOTSUP);
    EXPECT_OK(qcow2_pwrite(r.play.disk, "x", 1, 0, 0, &err), &err);
    create(&r, "a");
    create(&r, "b");
    before = mem_copy(r.mem);
    expect_refused(qcow2_snapshot_apply(r.play.disk, "a", &err), &err,
                   ENOTSUP);
    expect_bytes(r.mem, before);
    mem_free(before);
    EXPECT_OK(qcow2_snapshot_delete(r.play.disk, "b", &err), &err);
    EXPECT_OK(qcow2_snapshot_apply(r.play.disk, "a", &err), &err);
    finish(&r);
}

static void
expect_snapshot(struct rig *r, size_t i, const char *id, const char *name)
{
    struct qcow2_snapshot s;

    EXPECT(i < qcow2_get_nr_snapshots(r->play.disk), "no snapshot %zu", i);
    snapshot_get(r->play.disk, i, &s);
    EXPECT(strcmp(s.id, id) == 0 && strcmp(s.name, name) == 0,
           "snapshot %zu is %s '%s', should be %s '%s'", i, s.id, s.name, id,
           name);
}

static void
new_ids_are_above_all_numbers(void **state)
{
    struct rig r;

    (void)state;
    start(&r, "size 1M; data 0 1; snapshot 10 a; snapshot x b; snapshot 007 c;"
              "snapshot 2z d");
    create(&r, "e");
    expect_snapshot(&r, 4, "11", "e");
    create(&r, "12");
    create(&r, "f");
    expect_snapshot(&r, 6, "13", "f");
    finish(&r);
}

static void
new_ids_are_new_whatever_ids_there_are(void **state)
{
    static const char *const ids[] = {
        "4294967294", "4294967295", "18446744073709551614",
        "18446744073709551615", "99999999999999999999999999", "-1", "+3",
    };

    (void)state;
    for (unsigned i = 0; i < sizeof ids / sizeof ids[0]; i++) {
        char recipe[256];
        struct rig r;

        snprintf(recipe, sizeof recipe, "size 1M; data 0 1; snapshot %s old;"
                 "snapshot 0 zero; snapshot 1 one; snapshot %s also",
                 ids[i], ids[(i + 1) % 3]);
        start(&r, recipe);
        for (size_t n = 4; n < 7; n++) {
            struct qcow2_snapshot new, other;

            create(&r, "new");
            snapshot_get(r.play.disk, n, &new);
            for (size_t k = 0; k < n; k++) {
                snapshot_get(r.play.disk, k, &other);
                EXPECT(strcmp(new.id, other.id) != 0, "two have the id %s",
                       new.id);
            }
        }
        finish(&r);
    }
}

static void
expect_deleted(struct rig *r, const char *what, const char *id_left)
{
    struct qcow2_error err;

    EXPECT_OK(qcow2_snapshot_delete(r->play.disk, what, &err), &err);
    for (size_t i = 0; i < qcow2_get_nr_snapshots(r->play.disk); i++) {
        struct qcow2_snapshot s;

        snapshot_get(r->play.disk, i, &s);
        if (strcmp(s.id, id_left) == 0)
            return;
    }
    EXPECT(false, "%s is gone", id_left);
}

static void
names_and_ids_are_told_apart(void **state)
{
    struct qcow2_error err;
    struct rig r;

    (void)state;
    start(&r, "size 1M; data 0 1; snapshot 1 2; snapshot 2 3; snapshot 3 twice;"
              "snapshot 4 twice; snapshot 5 1");
    expect_refused(qcow2_snapshot_delete(r.play.disk, "twice", &err), &err,
                   EINVAL);
    expect_refused(qcow2_snapshot_apply(r.play.disk, "twice", &err), &err,
                   EINVAL);
    expect_refused(qcow2_snapshot_delete(r.play.disk, "twic", &err), &err,
                   ENOENT);
    expect_refused(qcow2_snapshot_delete(r.play.disk, "03", &err), &err,
                   ENOENT);
    expect_refused(qcow2_snapshot_apply(r.play.disk, "", &err), &err, ENOENT);
    for (char word[] = "1"; word[0] <= '3'; word[0]++) {
        expect_refused(qcow2_snapshot_delete(r.play.disk, word, &err), &err,
                       EINVAL);
        expect_refused(qcow2_snapshot_apply(r.play.disk, word, &err), &err,
                       EINVAL);
    }
    expect_deleted(&r, "snapshot.name=2", "2");
    expect_deleted(&r, "2", "3");
    expect_deleted(&r, "snapshot.id=3,snapshot.name=twice", "4");
    expect_deleted(&r, "twice", "5");
    EXPECT_OK(qcow2_snapshot_delete(r.play.disk, "1", &err), &err);
    finish(&r);
}

static void
names_have_1_to_255_bytes(void **state)
{
    static const char odd[] = "\x1b[31m\xff\n \xc3\xa4 '\"\\";
    char name[258];
    struct qcow2_error err;
    struct rig r;

    (void)state;
    start(&r, "size 1M; data 0 1");
    memset(name, 'n', sizeof name);
    name[256] = '\0';
    expect_refused(qcow2_snapshot_create(r.play.disk, name, &plain, &err),
                   &err, EINVAL);
    expect_refused(qcow2_snapshot_create(r.play.disk, "", &plain, &err), &err,
                   EINVAL);
    name[255] = '\0';
    create(&r, name);
    expect_snapshot(&r, 0, "1", name);
    create(&r, odd);
    expect_snapshot(&r, 1, "2", odd);
    expect_refused(qcow2_snapshot_delete(r.play.disk, "\x1b[2J", &err), &err,
                   ENOENT);
    EXPECT(!strchr(err.text, '\x1b'), "a terminal would obey this: %s",
           err.text);
    EXPECT_OK(qcow2_snapshot_delete(r.play.disk, odd, &err), &err);
    finish(&r);
}

static void
dates_and_clocks_are_stored_as_given(void **state)
{
    static const struct qcow2_snapshot_create_options o = {
        .date_sec = 4000000000, .date_nsec = 999999999,
        .vm_clock_nsec = UINT64_C(0x123456789abcdef0),
    };
    struct qcow2_snapshot s;
    struct qcow2_error err;
    struct rig r;

    (void)state;
    start(&r, "size 1M; data 0 1");
    EXPECT_OK(qcow2_snapshot_create(r.play.disk, "a", &o, &err), &err);
    create(&r, "b");
    snapshot_get(r.play.disk, 0, &s);
    assert_int_equal(s.date_sec, o.date_sec);
    assert_int_equal(s.date_nsec, o.date_nsec);
    assert_int_equal(s.vm_clock_nsec, o.vm_clock_nsec);
    assert_int_equal(s.icount, UINT64_MAX);
    assert_int_equal(s.vm_state_size, 0);
    finish(&r);
}

static uint64_t
number_at(const unsigned char *bytes, unsigned nr_bytes)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < nr_bytes; i++)
        n = n << 8 | bytes[i];
    return n;
}

/* What a snapshot names is shared, and so is what the disk does (I4). */
static void
no_l1_table_says_copied_of_what_is_shared(void **state)
{
    const unsigned char *bytes, *entry;
    uint64_t nr_bytes;
    struct rig r;

    (void)state;
    start(&r, "cluster 512; size 256K; data 0-3 1; data 100 2; data 500 3");
    create(&r, "first");
    bytes = mem_bytes(r.mem, &nr_bytes);
    entry = bytes + number_at(bytes + 64, 8);
    for (unsigned i = 0; i < 2; i++) {
        const unsigned char *place = i == 0 ? bytes + 40 : entry;
        uint64_t nr = number_at(i == 0 ? bytes + 36 : entry + 8, 4);
        unsigned nr_tables = 0;

        for (uint64_t k = 0; k < nr; k++) {
            uint64_t e = number_at(bytes + number_at(place, 8) + 8 * k, 8);

            EXPECT(e >> 63 == 0, "entry %llu of table %u has COPIED",
                   (unsigned long long)k, i);
            nr_tables += e != 0;
        }
        assert_int_equal(nr_tables, 3);
    }
    finish(&r);
}

/* Extra data of entry `name`, which is in the file once. */
static const unsigned char *
find_name(struct rig *r, const char *name)
{
    uint64_t nr_bytes;
    const unsigned char *bytes = mem_bytes(r->mem, &nr_bytes);
    const unsigned char *p = NULL, *at = bytes;

    while ((at = memmem(at, bytes + nr_bytes - at, name, strlen(name))))
        p = at++;
    EXPECT(p, "'%s' is not in the file", name);
    return p;
}

static void
extra_data_that_nobody_understands_is_kept(void **state)
{
    static const unsigned unknown = 100 - 24;
    struct qcow2_error err;
    struct rig r;

    (void)state;
    start(&r, "size 1M; data 0 1; snapshot 1 first; snapshot 2 STRANGE "
              "extra=100; data 0 2; snapshot 3 third; data 1 3");
    create(&r, "fourth");
    EXPECT_OK(qcow2_snapshot_delete(r.play.disk, "first", &err), &err);
    EXPECT_OK(qcow2_snapshot_apply(r.play.disk, "STRANGE", &err), &err);
    EXPECT_OK(qcow2_resize(r.play.disk, 3 << 20, false, &err), &err);
    for (unsigned i = 1; i <= unknown; i++)
        EXPECT(find_name(&r, "2STRANGE")[-(int)i] == 0xa5,
               "byte %u before the name", i);
    finish(&r);
}

static void
snapshots_being_read_are_not_deleted(void **state)
{
    struct qcow2_disk *a, *b;
    struct qcow2_error err;
    struct rig r;

    (void)state;
    start(&r, "size 1M; data 0 1; snapshot 1 s; data 0 2; snapshot 2 t");
    a = qcow2_open_snapshot(r.play.disk, "s", &err);
    b = qcow2_open_snapshot(r.play.disk, "s", &err);
    expect_refused(qcow2_snapshot_delete(r.play.disk, "s", &err), &err,
                   EBUSY);
    EXPECT_OK(qcow2_close(a, &err), &err);
    expect_refused(qcow2_snapshot_delete(r.play.disk, "s", &err), &err,
                   EBUSY);
    EXPECT_OK(qcow2_snapshot_delete(r.play.disk, "t", &err), &err);
    EXPECT_OK(qcow2_snapshot_apply(r.play.disk, "s", &err), &err);
    EXPECT_OK(qcow2_close(b, &err), &err);
    EXPECT_OK(qcow2_snapshot_delete(r.play.disk, "s", &err), &err);
    finish(&r);
}

static void
disks_that_cannot_have_snapshots_say_so(void **state)
{
    struct qcow2_options o = QCOW2_OPTIONS_INIT;
    struct qcow2_disk *disk;
    struct qcow2_error err;
    struct rig r;

    (void)state;
    start(&r, "size 1M; data 0 1; snapshot 1 s");
    disk = qcow2_open_snapshot(r.play.disk, "s", &err);
    expect_refused(qcow2_snapshot_create(disk, "a", &plain, &err), &err,
                   EROFS);
    expect_refused(qcow2_resize(disk, 1 << 20, true, &err), &err, EROFS);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    finish(&r);

    tmpdir_write_file(tmpdir_path("raw"), "raw", 3);
    o.format = QCOW2_FORMAT_RAW;
    disk = qcow2_open(tmpdir_path("raw"), &o, &err);
    expect_refused(qcow2_snapshot_create(disk, "a", &plain, &err), &err,
                   ENOTSUP);
    expect_refused(qcow2_snapshot_apply(disk, "a", &err), &err, ENOTSUP);
    expect_refused(qcow2_snapshot_delete(disk, "a", &err), &err, ENOTSUP);
    EXPECT_OK(qcow2_close(disk, &err), &err);
}

/* Version 2 as it was before sizes were stored. */
static void
version_2_snapshots_work_and_keep_the_size(void **state)
{
    struct qcow2_error err;
    struct contents now;
    struct rig r;
    struct whole_op ops[] = {
        { .kind = WHOLE_APPLY, .i = 0 },
        { .kind = WHOLE_CREATE, .number = 5, .vm_state_size = 70000 },
        { .kind = WHOLE_DELETE, .i = 0 },
        { .kind = WHOLE_DELETE, .i = 0 },
        { .kind = WHOLE_RESIZE, .size = 100 << 10 },
    };

    (void)state;
    start(&r, "version 2; cluster 512; size 41000; data 0-5 1; snapshot 1 a;"
              "data 3-7 2; compressed 8-9 3");
    contents_read(&now, r.play.disk);
    expect_refused(qcow2_resize(r.play.disk, 100 << 10, false, &err), &err,
                   ENOTSUP);
    for (unsigned i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        expect_step("%s", whole_text(&ops[i]));
        EXPECT_OK(whole_run(r.play.disk, &now, &ops[i], &err), &err);
        whole_model(&now, &ops[i]);
        contents_expect(r.play.disk, &now);
    }
    contents_free(&now);
    finish(&r);
}

static struct qcow2_disk *
reopen(struct rig *r)
{
    struct qcow2_error err;

    EXPECT_OK(qcow2_close(r->play.disk, &err), &err);
    r->play.disk = rig_open_disk(r, io_mem_open(r->mem, false));
    return r->play.disk;
}

/* As in images that were made version 3 later: such a snapshot has the size
 * that the disk has. */
static void
snapshots_without_a_size_keep_theirs_when_the_disk_changes(void **state)
{
    static const uint64_t sizes[] = { 300000, 9000 };

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct qcow2_error err;
        struct contents now;
        struct whole_op op = { .kind = WHOLE_RESIZE, .size = sizes[i] };
        struct rig r;

        start(&r, "cluster 512; size 41000; data 0-60 1;"
                  "snapshot 1 a extra=0; snapshot 2 b extra=8; data 3-7 2");
        contents_read(&now, r.play.disk);
        EXPECT_OK(whole_run(r.play.disk, &now, &op, &err), &err);
        whole_model(&now, &op);
        contents_expect(reopen(&r), &now);
        contents_free(&now);
        finish(&r);
    }
}

static void
snapshots_tell_their_size_once_they_are_version_3(void **state)
{
    struct qcow2_amend_options to_v3 = { .version = 3 };
    struct qcow2_error err;
    struct contents was;
    struct rig r;

    (void)state;
    start(&r, "version 2; cluster 512; size 41000; data 0-60 1;"
              "snapshot 1 a; data 3-7 2; snapshot 2 b extra=8");
    contents_read(&was, r.play.disk);
    EXPECT_OK(qcow2_amend(r.play.disk, &to_v3, &err), &err);
    contents_expect(reopen(&r), &was);
    contents_free(&was);
    finish(&r); /* a check objects to those that do not */
}

static void
snapshots_without_a_size_keep_theirs_when_another_is_applied(void **state)
{
    struct whole_op op = { .kind = WHOLE_APPLY, .i = 0 };
    struct qcow2_error err;
    struct contents now;
    struct rig r;

    (void)state;
    start(&r, "cluster 512; size 300000; data 0-60 1;"
              "snapshot 1 a size=9000; data 3-7 2; snapshot 2 b extra=8");
    contents_read(&now, r.play.disk);
    EXPECT_OK(whole_run(r.play.disk, &now, &op, &err), &err);
    whole_model(&now, &op);
    contents_expect(reopen(&r), &now);
    contents_free(&now);
    finish(&r);
}

/* A file with a table of as many snapshots as a header may name, of a disk of
 * no bytes: such a snapshot is nothing but its entry. */
static void
add_many_snapshots(struct rig *r, uint64_t table_off)
{
    static const unsigned char nr_snapshots[] = { 0, 1, 0, 0 };
    struct qcow2_error err;
    struct io *io = io_mem_open(r->mem, false);
    unsigned char offset[8] = { 0, 0, 0, 0, 0, 0, table_off >> 8, table_off };

    for (unsigned i = 0; i < 65536; i++) {
        unsigned char entry[40 + 24 + 8] = { 0 };
        char id[9];

        snprintf(id, sizeof id, "%07uN", i);
        entry[13] = 7;
        entry[15] = 1;
        entry[39] = 24;
        memcpy(entry + 64, id, 8);
        EXPECT_OK(io_pwrite(io, entry, sizeof entry,
                            table_off + i * sizeof entry, &err), &err);
    }
    EXPECT_OK(io_pwrite(io, nr_snapshots, 4, 60, &err), &err);
    EXPECT_OK(io_pwrite(io, offset, 8, 64, &err), &err);
    io_close(io);
}

static void
there_are_at_most_65536_snapshots(void **state)
{
    struct qcow2_error err;
    struct rig r;

    (void)state;
    expect_case("65536 snapshots");
    rig_init(&r, "cluster 4K; size 0; leak 1152", 0);
    rig_start(&r);
    add_many_snapshots(&r, 4096);
    r.play.disk = rig_open_disk(&r, io_mem_open(r.mem, false));
    expect_create_refused(&r, ENOSPC);
    EXPECT_OK(qcow2_snapshot_delete(r.play.disk, "0065535", &err), &err);
    create(&r, "the last");
    expect_snapshot(&r, 65535, "65535", "the last");
    expect_create_refused(&r, ENOSPC);
    EXPECT_OK(qcow2_snapshot_apply(r.play.disk, "0000000", &err), &err);
    EXPECT_OK(qcow2_snapshot_delete(r.play.disk, "0000000", &err), &err);
    expect_clean(&r); /* which takes the other implementation long */
    rig_end(&r);
    rig_free(&r);
}

/* Free clusters inside are used where the file cannot grow. */
static void
snapshots_find_room_on_a_full_device(void **state)
{
    struct qcow2_error err;
    const unsigned char *bytes;
    uint64_t nr_bytes;
    struct mem *file, *device;
    struct rig r;

    (void)state;
    expect_case("device");
    rig_init(&r, "cluster 4K; size 1M; gap 6; data 0-9 1", 0);
    rig_start(&r);
    file = r.mem;
    bytes = mem_bytes(file, &nr_bytes);
    device = mem_new_device(nr_bytes);
    r.mem = mem_like(device, bytes, nr_bytes);
    mem_free(device);
    mem_free(file);
    r.play.disk = rig_open_disk(&r, io_mem_open(r.mem, false));
    create(&r, "a");
    create(&r, "b");
    EXPECT_OK(qcow2_pwrite(r.play.disk, "x", 1, 0, 0, &err), &err);
    finish(&r);
}

/* Whatever is damaged is said so, and marked; what can be read still is. */
static void
damaged_tables_end_the_operation(void **state)
{
    static const struct {
        const char *recipe;
        enum whole_kind kind;
        bool changed; /* found out too late */
    } cases[] = {
        { "poke l2[1] | 4", WHOLE_CREATE, false },
        { "poke l2[1] | 4", WHOLE_APPLY, false },
        { "poke l2[1] | 4", WHOLE_DELETE, true },
        { "poke l1[0] | 2", WHOLE_CREATE, false },
        { "poke u64[@snapshot-l1[0]] | 2", WHOLE_APPLY, false },
        { "poke u64[@snapshot-l1[0]] | 2", WHOLE_DELETE, true },
        { "poke u64[@snapshot-l1[0]] = 0x40000000", WHOLE_APPLY, false },
        { "poke u64[@snapshot-l1[0]] = 0x40000000", WHOLE_DELETE, true },
        { "poke refcount[@data[1]/C] = 0", WHOLE_CREATE, false },
        { "poke refcount[@data[1]/C] = 0", WHOLE_APPLY, false },
        { "poke refcount[@data[1]/C] = 0", WHOLE_DELETE, true },
    };

    (void)state;
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct whole_op op = { .kind = cases[i].kind };
        struct contents names = { .nr = 1, .saved = calloc(1, 1000) };
        const unsigned char *bytes;
        struct qcow2_error err;
        uint64_t nr_bytes;
        char recipe[256], buf[1];
        struct rig r;

        snprintf(recipe, sizeof recipe, "cluster 4K; size 1M; data 0-3 1;"
                 "snapshot 1 s; %s", cases[i].recipe);
        start(&r, recipe);
        expect_step("%s", whole_text(&op));
        strcpy(names.saved[0].id, "1");
        expect_refused(whole_run(r.play.disk, &names, &op, &err), &err, EIO);
        EXPECT(qcow2_get_nr_snapshots(r.play.disk) == !cases[i].changed,
               "number of snapshots");
        expect_refused(qcow2_pwrite(r.play.disk, "x", 1, 0, 0, &err), &err,
                       EIO);
        if (!strstr(recipe, "l1[0] | 2") || strstr(recipe, "snapshot-l1"))
            EXPECT_OK(qcow2_pread(r.play.disk, buf, 1, 0, &err), &err);
        qcow2_close(r.play.disk, NULL);
        bytes = mem_bytes(r.mem, &nr_bytes);
        EXPECT(bytes[79] & 2, "the image is not marked corrupt");
        free(names.saved);
        rig_end(&r);
        rig_free(&r);
    }
}

/* Creating and deleting again and again takes the same places. */
static void
the_file_does_not_grow_with_each_snapshot(void **state)
{
    uint64_t nr_before, nr_after;
    struct qcow2_error err;
    struct rig r;

    (void)state;
    start(&r, "cluster 512; size 1M; data 0-60 1");
    for (unsigned i = 0; i < 100; i++) {
        if (i == 5)
            mem_bytes(r.mem, &nr_before);
        create(&r, "s");
        EXPECT_OK(qcow2_snapshot_apply(r.play.disk, "s", &err), &err);
        EXPECT_OK(qcow2_snapshot_delete(r.play.disk, "s", &err), &err);
    }
    mem_bytes(r.mem, &nr_after);
    EXPECT(nr_after == nr_before, "%llu bytes became %llu",
           (unsigned long long)nr_before, (unsigned long long)nr_after);
    finish(&r);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            refcounts_too_narrow_are_refused_before_anything_changes),
        cmocka_unit_test(applying_is_refused_where_refcounts_are_too_narrow),
        cmocka_unit_test(new_ids_are_above_all_numbers),
        cmocka_unit_test(new_ids_are_new_whatever_ids_there_are),
        cmocka_unit_test(names_and_ids_are_told_apart),
        cmocka_unit_test(names_have_1_to_255_bytes),
        cmocka_unit_test(dates_and_clocks_are_stored_as_given),
        cmocka_unit_test(no_l1_table_says_copied_of_what_is_shared),
        cmocka_unit_test(extra_data_that_nobody_understands_is_kept),
        cmocka_unit_test(snapshots_being_read_are_not_deleted),
        cmocka_unit_test(disks_that_cannot_have_snapshots_say_so),
        cmocka_unit_test(version_2_snapshots_work_and_keep_the_size),
        cmocka_unit_test(
            snapshots_without_a_size_keep_theirs_when_the_disk_changes),
        cmocka_unit_test(snapshots_tell_their_size_once_they_are_version_3),
        cmocka_unit_test(
            snapshots_without_a_size_keep_theirs_when_another_is_applied),
        cmocka_unit_test(there_are_at_most_65536_snapshots),
        cmocka_unit_test(snapshots_find_room_on_a_full_device),
        cmocka_unit_test(damaged_tables_end_the_operation),
        cmocka_unit_test(the_file_does_not_grow_with_each_snapshot),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
