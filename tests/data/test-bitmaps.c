/* SPDX-License-Identifier: BSD-3-Clause */
/* test-bitmaps: the first change of an image removes persistent bitmaps that
 * cannot be kept right: with a warning, and without a leak, unless it is in
 * doubt whose clusters they are. Those that can follow the disk's size.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "check/check.h"
#include "disk/open.h"
#include "expect.h"
#include "io-fault.h"
#include "io-mem.h"
#include "rig.h"

/* Two bitmaps, 'a' and 'b', in the last three clusters: the directory, the
 * table of 'a', its bits. 'b' has none. */
#define BITMAPS                                                         \
    "cluster 4096; size 1M; autoclear 0; compatible 9;"                 \
    "extension 0x23852875 \\x00\\x00\\x00\\x02\\x00\\x00\\x00\\x00"     \
    "\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x40"                          \
    "\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00;"                         \
    "data 0-9 1; snapshot 1 s; data 3-4 2; append 12288;"               \
    "poke refcount[@end/C-3] = 1; poke refcount[@end/C-2] = 1;"         \
    "poke refcount[@end/C-1] = 1;"                                      \
    "poke u64[136] = @end-12288;"                                       \
    "poke u64[@end-12288] = @end-8192;"                                 \
    "poke u64[@end-12280] = 0x200000000;"                               \
    "poke u64[@end-12272] = 0x0110000100000000;"                        \
    "poke u64[@end-12264] = 0x6100000000000000;"                        \
    "poke u64[@end-12256] = 0; poke u64[@end-12248] = 0;"               \
    "poke u64[@end-12240] = 0x0110000100000000;"                        \
    "poke u64[@end-12232] = 0x6200000000000000;"                        \
    "poke u64[@end-8192] = @end-4096; poke u64[@end-8184] = 1;"

enum { C = 4096, AUTOCLEAR_AT = 95, EXTENSION_AT = 112 };

static char warnings[4096];
static unsigned nr_warnings;

static void
note_warning(void *opaque, const char *text)
{
    (void)opaque;
    nr_warnings++;
    snprintf(warnings, sizeof warnings, "%s", text);
}

static void
open_rig(struct rig *r, const char *recipe)
{
    expect_case("%s", strstr(recipe, "= 1;") ? recipe + strlen(BITMAPS)
                                             : recipe);
    nr_warnings = 0;
    warnings[0] = '\0';
    rig_init(r, recipe, 0);
    r->options.warn = note_warning;
    rig_open(r);
}

static struct qcow2_check_result
check(struct rig *r, enum qcow2_repair repair)
{
    const struct qcow2_check_options options = { .repair = repair };
    struct io *io = io_mem_open(r->mem, repair == QCOW2_REPAIR_NONE);
    struct qcow2_check_result result;
    struct qcow2_error err;

    EXPECT_OK(check_io(io, &options, &result, &err), &err);
    io_close(io);
    return result;
}

static const unsigned char *
bytes_of(struct rig *r)
{
    uint64_t nr_bytes;

    return mem_bytes(r->mem, &nr_bytes);
}

static bool
has_bitmaps(struct rig *r)
{
    static const unsigned char type[4] = { 0x23, 0x85, 0x28, 0x75 };

    return bytes_of(r)[AUTOCLEAR_AT] & 1
           && memcmp(bytes_of(r) + EXTENSION_AT, type, sizeof type) == 0;
}

static void
the_first_write_removes_them_with_a_warning(void **state)
{
    struct rig r;

    (void)state;
    open_rig(&r, BITMAPS);
    EXPECT(has_bitmaps(&r), "not built");
    rig_play(&r, OP_READ, 0, 1 << 20, 0);
    EXPECT(nr_warnings == 0 && has_bitmaps(&r), "a read did that");
    rig_play(&r, OP_WRITE, 5000, 100, 0);
    EXPECT(nr_warnings == 1 && strstr(warnings, "'a', 'b'")
           && !strstr(warnings, "allocated"), "%s", warnings);
    /* Nothing of them is left in the header, so that nobody warns again, and
     * all else is. */
    EXPECT(!has_bitmaps(&r) && bytes_of(&r)[AUTOCLEAR_AT - 9] == 2
           && !memmem(bytes_of(&r), C, "\x23\x85\x28\x75", 4), "header");
    rig_play(&r, OP_WRITE, 50000, 5000, QCOW2_FUA);
    EXPECT(nr_warnings == 1, "a second warning");
    rig_close(&r); /* neither leak nor damage */
    rig_free(&r);
}

static void
operations_that_are_refused_keep_them(void **state)
{
    const struct qcow2_amend_options amend = {
        .version = 2, .lazy_refcounts = QCOW2_AMEND_ON,
    };
    struct qcow2_error err;
    struct rig r;

    (void)state;
    open_rig(&r, BITMAPS);
    EXPECT(qcow2_snapshot_apply(r.play.disk, "none", &err) == -1
           && err.errnum == ENOENT, "apply");
    EXPECT(qcow2_snapshot_delete(r.play.disk, "none", &err) == -1
           && err.errnum == ENOENT, "delete");
    EXPECT(qcow2_resize(r.play.disk, 4096, false, &err) == -1, "resize");
    EXPECT(qcow2_amend(r.play.disk, &amend, &err) == -1, "amend");
    EXPECT(nr_warnings == 0 && has_bitmaps(&r), "%s", warnings);
    EXPECT_OK(qcow2_close(r.play.disk, &err), &err);
    rig_end(&r);
    rig_free(&r);
}

/* The data of the disk, and of the snapshot, are worth more than the space.
 */
static void
what_may_be_somebody_elses_is_not_freed(void **state)
{
    static const struct {
        const char *pokes, *why;
    } doubts[] = {
        { "poke u64[@end-8192] = @data[5]; poke refcount[@data[5]/C] = 1",
          "data of the disk or of a snapshot" },
        { "poke u64[@end-8192] = @data[3]", "data of the disk" },
        /* Only the snapshot has the cluster. */
        { "poke u64[@end-8192] = @data[2]+4096", "or of a snapshot" },
        { "poke u64[@end-8192] = @l1", "theirs alone" },
        { "poke u64[@end-8192] = @end-8192", "theirs alone" },
        { "poke u64[@end-8184] = @end-4096", "theirs alone" },
        { "poke refcount[@end/C-1] = 2", "theirs alone" },
        { "poke refcount[@end/C-1] = 0", "theirs alone" },
        { "poke u64[@end-8192] = @end", "inside the file" },
        { "poke u64[@end-12288] = @end", "inside the file" },
        { "poke u64[@end-12288] = @end-8184", "inside the file" },
        { "poke u64[@end-8192] = 0xffffffffffffe00", "make no sense" },
        { "poke u32[@end-12280] = 0x10000", "inside the file" },
        { "poke u32[@end-12280] = 0x20001", "too large" },
        { "poke u32[@end-12280] = 0xffffffff", "too large" },
        { "poke u64[@end-12240] = 0x01100001ffffffff",
          "directory makes no sense" },
    };

    (void)state;
    for (unsigned i = 0; i < sizeof doubts / sizeof doubts[0]; i++) {
        char recipe[2048];
        struct rig r;

        snprintf(recipe, sizeof recipe, BITMAPS "%s", doubts[i].pokes);
        open_rig(&r, recipe);
        rig_play(&r, OP_WRITE, 100000, 5000, QCOW2_FUA);
        EXPECT(nr_warnings == 1 && strstr(warnings, "stays allocated")
               && strstr(warnings, doubts[i].why), "%s", warnings);
        /* If anything was freed it would be used now. */
        for (unsigned at = 0; at < 20; at++)
            rig_play(&r, OP_WRITE, 200000 + at * 9000, 5000, QCOW2_FUA);
        rig_play(&r, OP_READ, 0, 1 << 20, 0);
        rig_expect_snapshots(&r, r.play.disk);
        qcow2_close(r.play.disk, NULL);
        check(&r, QCOW2_REPAIR_ALL);
        EXPECT(check(&r, QCOW2_REPAIR_NONE).leaks == 0, "leaks");
        EXPECT(check(&r, QCOW2_REPAIR_NONE).corruptions == 0, "damage");
        r.play.disk = rig_open_disk(&r, io_mem_open(r.mem, true));
        rig_play(&r, OP_READ, 0, 1 << 20, 0);
        qcow2_close(r.play.disk, NULL);
        rig_end(&r);
        rig_free(&r);
    }
}

static void
names_are_escaped_and_the_rest_is_counted(void **state)
{
    char recipe[4096] = "cluster 64K; size 1M; autoclear 0;"
                        "extension 0x23852875 \\x00\\x00\\x01\\x00"
                        "\\x00\\x00\\x00\\x00"
                        "\\x00\\x00\\x00\\x00\\x00\\x00\\x20\\x00"
                        "\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00;"
                        "data 0-9 1; append 65536;"
                        "poke refcount[@end/C-1] = 1;"
                        "poke u64[136] = @end-65536;";
    struct builder *b = builder_new();
    struct rig r;

    (void)state;
    /* 256 entries of 32 bytes. */
    for (unsigned i = 0; i < 256; i++) {
        char line[400];

        snprintf(line, sizeof line, "poke u64[@end-%u] = 0;"
                 "poke u64[@end-%u] = 0;"
                 "poke u64[@end-%u] = 0x0110000400000000;"
                 "poke u64[@end-%u] = 0x1b5b%02x0a00000000",
                 65536 - 32 * i, 65528 - 32 * i, 65520 - 32 * i,
                 65512 - 32 * i, i);
        if (i == 0)
            builder_add(b, "%s", recipe);
        builder_add(b, "%s", line);
    }
    rig_init(&r, "", 0);
    builder_free(r.image);
    r.image = b;
    free(r.below);
    r.below = calloc(1, 1 << 20);
    r.options.warn = note_warning;
    nr_warnings = 0;
    rig_open(&r);
    rig_play(&r, OP_WRITE, 0, 100, 0);
    EXPECT(nr_warnings == 1 && strstr(warnings, "'\\x1b[\\x00\\x0a', '")
           && strstr(warnings, " more") && !strchr(warnings, '\x1b'),
           "%s", warnings);
    rig_close(&r);
    rig_free(&r);
}

/* Whatever fails, the image is right, and either they or a leak are there. */
static void
every_failure_leaves_no_damage(void **state)
{
    (void)state;
    for (unsigned at = 1;; at++) {
        struct qcow2_error err;
        struct rig r;
        bool failed;

        open_rig(&r, BITMAPS);
        expect_step("the change or flush number %u fails", at);
        fault_arm(&r.plan, FAULT_CHANGE | FAULT_FLUSH, at, EIO, 0);
        qcow2_pwrite(r.play.disk, "x", 1, 0, QCOW2_FUA, &err);
        qcow2_close(r.play.disk, &err);
        failed = fault_fired(&r.plan) > 0;
        EXPECT(check(&r, QCOW2_REPAIR_NONE).corruptions == 0, "damage");
        rig_end(&r);
        rig_free(&r);
        if (!failed)
            break;
    }
}

/* So that no program warns of them for ever. */
static void
a_repair_that_drops_them_drops_the_extension(void **state)
{
    static const char broken[] =
        "cluster 4096; size 1M; autoclear 0; extension 0x12345678 kept;"
        "extension 0x23852875 \\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00"
        "\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x40"
        "\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00;"
        "extension 0x12345679 too; data 0-9 1";
    struct rig r;

    (void)state;
    expect_case("%s", broken);
    rig_init(&r, broken, 0);
    rig_start(&r);
    EXPECT(check(&r, QCOW2_REPAIR_ALL).corruptions_fixed == 1, "not found");
    EXPECT(!memmem(bytes_of(&r), C, "\x23\x85\x28\x75", 4)
           && memmem(bytes_of(&r), C, "kept", 4)
           && memmem(bytes_of(&r), C, "too", 3), "extensions");
    EXPECT(check(&r, QCOW2_REPAIR_NONE).corruptions == 0, "damage");
    r.play.disk = rig_open_disk(&r, io_mem_open(r.mem, false));
    rig_play(&r, OP_READ, 0, 1 << 20, 0);
    rig_close(&r);
    rig_free(&r);
}

/* While nothing is valid that they name, nobody has looked at them. */
static void
stale_extensions_of_any_number_are_replaced(void **state)
{
#define STALE "extension 0x23852875 xxxxxxxxxxxxxxxxxxxxxxxx;"
    struct qcow2_error err;
    struct rig r;

    (void)state;
    open_rig(&r, "cluster 4096; size 1M; " STALE "extension 0x12345678 kept;"
             STALE);
    EXPECT_OK(qcow2_bitmap_add(r.play.disk, "a", 0, false, &err), &err);
    rig_play(&r, OP_WRITE, 5000, 100, 0);
    EXPECT_OK(qcow2_close(r.play.disk, &err), &err);
    EXPECT(nr_warnings == 0, "%s", warnings);
    EXPECT(check(&r, QCOW2_REPAIR_NONE).corruptions == 0, "damage");
    EXPECT(has_bitmaps(&r) && memmem(bytes_of(&r), C, "kept", 4),
           "extensions");
    rig_end(&r);
    rig_free(&r);
}

static int
count_ranges(void *opaque, uint64_t guest_off, uint64_t nr_bytes, bool dirty)
{
    (void)guest_off;
    (void)nr_bytes;
    *(unsigned *)opaque += dirty;
    return 0;
}

/* Those that record nothing, too, whose tables are others then. */
static void
all_bitmaps_follow_the_size_of_the_disk(void **state)
{
    static const uint64_t sizes[] = { 1 << 20, 8 << 20, 4 << 20, 512 };
    struct qcow2_error err;
    struct rig r;

    (void)state;
    open_rig(&r, "cluster 512; size 4M");
    EXPECT_OK(qcow2_bitmap_add(r.play.disk, "on", 512, false, &err), &err);
    EXPECT_OK(qcow2_bitmap_add(r.play.disk, "off", 512, true, &err), &err);
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        unsigned nr_on = 0, nr_off = 0;

        EXPECT_OK(qcow2_resize(r.play.disk, sizes[i], true, &err), &err);
        EXPECT_OK(qcow2_close(r.play.disk, &err), &err);
        EXPECT(nr_warnings == 0, "%s", warnings);
        EXPECT(check(&r, QCOW2_REPAIR_NONE).leaks == 0, "leaks");
        r.play.disk = rig_open_disk(&r, io_mem_open(r.mem, false));
        EXPECT_OK(qcow2_bitmap_dump(r.play.disk, "on", count_ranges, &nr_on,
                                    &err), &err);
        EXPECT_OK(qcow2_bitmap_dump(r.play.disk, "off", count_ranges, &nr_off,
                                    &err), &err);
        /* What the disk has grown by counts as changed. */
        EXPECT(nr_on == (i == 1 || i == 2) && nr_off == 0, "%u %u", nr_on,
               nr_off);
    }
    EXPECT_OK(qcow2_close(r.play.disk, &err), &err);
    rig_end(&r);
    rig_free(&r);
}

static void *
dump_often(void *disk)
{
    for (unsigned i = 0; i < 20; i++) {
        unsigned nr = 0;
        struct qcow2_error err;

        EXPECT_OK(qcow2_bitmap_dump(disk, "a", count_ranges, &nr, &err),
                  &err);
    }
    return NULL;
}

/* The first change claims bitmaps while others read them. */
static void
threads_read_bitmaps_while_they_are_claimed(void **state)
{
    struct qcow2_error err;
    struct rig r;

    (void)state;
    open_rig(&r, "cluster 4096; size 1M");
    EXPECT_OK(qcow2_bitmap_add(r.play.disk, "a", 512, false, &err), &err);
    for (unsigned i = 0; i < 20; i++) {
        pthread_t reader;

        EXPECT_OK(qcow2_bitmap_enable(r.play.disk, "a", true, &err), &err);
        EXPECT(pthread_create(&reader, NULL, dump_often, r.play.disk) == 0,
               "no thread");
        rig_play(&r, OP_WRITE, i * 4096, 512, 0);
        pthread_join(reader, NULL);
    }
    EXPECT_OK(qcow2_close(r.play.disk, &err), &err);
    rig_end(&r);
    rig_free(&r);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_write_removes_them_with_a_warning),
        cmocka_unit_test(operations_that_are_refused_keep_them),
        cmocka_unit_test(what_may_be_somebody_elses_is_not_freed),
        cmocka_unit_test(names_are_escaped_and_the_rest_is_counted),
        cmocka_unit_test(every_failure_leaves_no_damage),
        cmocka_unit_test(a_repair_that_drops_them_drops_the_extension),
        cmocka_unit_test(all_bitmaps_follow_the_size_of_the_disk),
        cmocka_unit_test(stale_extensions_of_any_number_are_replaced),
        cmocka_unit_test(threads_read_bitmaps_while_they_are_claimed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
