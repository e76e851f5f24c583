/* SPDX-License-Identifier: BSD-3-Clause */
/* test-autoclear: power cuts around the first change of an image that has
 * features only programs which know them may keep. While the bit is set,
 * what they know (which clusters changed, say) must be right: nothing has
 * changed yet.
 */
#include <stdlib.h>

#include "audit.h"
#include "builder.h"
#include "check/check.h"
#include "disk/open.h"
#include "expect.h"
#include "io-crash.h"
#include "rng.h"
#include "states.h"

enum { C = 512, SIZE = 64 * C, AUTOCLEAR_AT = 88 };

static const char *const recipes[] = {
    "cluster 512; size 32K; autoclear 40; data 0-9 1; zero-alloc 12;"
    "compressed 14-15 2",
    /* Bitmaps of an unknown type, whose clusters are freed once they are gone:
     * directory, table and bits. */
    "cluster 512; size 32K; autoclear 0;"
    "extension 0x23852875 \\x00\\x00\\x00\\x01\\x00\\x00\\x00\\x00"
    "\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x20"
    "\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00;"
    "data 0-9 1; zero-alloc 12; compressed 14-15 2; append 1536;"
    "poke refcount[@end/C-3] = 1; poke refcount[@end/C-2] = 1;"
    "poke refcount[@end/C-1] = 1; poke u64[136] = @end-1536;"
    "poke u64[@end-1536] = @end-1024; poke u64[@end-1528] = 0x100000000;"
    "poke u64[@end-1520] = 0x0210000100000000;"
    "poke u64[@end-1512] = 0x6100000000000000;"
    "poke u64[@end-1024] = @end-512",
};
enum { NR_RECIPES = sizeof recipes / sizeof recipes[0] };

static const char *const changes[] = {
    "a write in place", "a write into a new cluster", "a zeroed cluster",
    "a zeroed part", "a trimmed cluster", "another size", "a flushed write",
};
enum { NR_CHANGES = sizeof changes / sizeof changes[0] };

static struct qcow2_disk *
open_disk(struct io *io, bool readonly)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_disk *disk;
    struct qcow2_error err;

    options.readonly = readonly;
    disk = disk_open_io(io, "image", &options, &err);
    EXPECT(disk, "%s", err.text);
    return disk;
}

static int
make_change(struct qcow2_disk *disk, unsigned which, struct qcow2_error *err)
{
    switch (which) {
    case 0:
        return qcow2_pwrite(disk, "changed", 7, 100, 0, err);
    case 1:
        return qcow2_pwrite(disk, "changed", 7, 20 * C, 0, err);
    case 2:
        return qcow2_zero(disk, C, 0, QCOW2_MAY_TRIM, err);
    case 3:
        return qcow2_zero(disk, 100, 200, 0, err);
    case 4:
        return qcow2_trim(disk, C, 14 * C, 0, err);
    case 5:
        return qcow2_resize(disk, SIZE - C, true, err);
    case 6:
        return qcow2_pwrite(disk, "changed", 7, 100, QCOW2_FUA, err);
    }
    return -1;
}

struct trial {
    unsigned char before[SIZE];
    unsigned nr_set, nr_changed; /* states */
};

/* Bitmaps count as long as they are there. Lazy refcounts do not, as long as
 * the image is dirty. */
static void
expect_no_damage(struct mem *image)
{
    const struct qcow2_check_options options = { .repair = 0 };
    struct io *io = io_mem_open(image, true);
    struct qcow2_check_result result;
    struct qcow2_error err;
    uint64_t nr_bytes;
    const unsigned char *bytes = mem_bytes(image, &nr_bytes);
    struct audit a;

    audit_image(bytes, nr_bytes, &a);
    EXPECT_OK(check_io(io, &options, &result, &err), &err);
    EXPECT(result.corruptions == 0 || (a.dirty && a.lazy), "%d corruptions",
           (int)result.corruptions);
    io_close(io);
}

static int
check_state(void *opaque, const struct crash_state *state)
{
    static const unsigned char none[8];
    struct trial *t = opaque;
    unsigned char got[SIZE];
    struct qcow2_disk *disk;
    struct qcow2_error err;
    uint64_t nr_bytes;
    const unsigned char *bytes = mem_bytes(state->image, &nr_bytes);
    bool set = memcmp(bytes + AUTOCLEAR_AT, none, sizeof none) != 0;
    bool changed = true;

    expect_step("%s", state->what);
    disk = open_disk(io_mem_open(state->image, true), true);
    if (qcow2_get_size(disk) == SIZE) {
        EXPECT_OK(qcow2_pread(disk, got, SIZE, 0, &err), &err);
        changed = memcmp(got, t->before, SIZE) != 0;
    }
    qcow2_close(disk, NULL);
    EXPECT(!(set && changed), "it has changed, and the bit is still set");
    expect_no_damage(state->image);
    t->nr_set += set;
    t->nr_changed += changed;
    return 0;
}

static struct crash_log *
new_log(struct trial *t, const char *recipe)
{
    struct builder *b = builder_new();
    const unsigned char *bytes;
    struct crash_log *log;
    struct mem *mem;
    size_t nr_bytes;

    builder_add(b, "%s", recipe);
    bytes = builder_bytes(b, &nr_bytes);
    mem = mem_new(bytes, nr_bytes);
    log = crash_log_new(mem);
    mem_free(mem);
    memset(t, 0, sizeof *t);
    builder_overlay(b, -1, t->before, SIZE);
    builder_free(b);
    return log;
}

static void
nothing_changes_before_the_bit_is_durably_cleared(void **state)
{
    struct crash_options options = CRASH_OPTIONS_INIT;

    (void)state;
    for (unsigned i = 0; i < NR_CHANGES * NR_RECIPES; i++) {
        const char *recipe = recipes[i / NR_CHANGES];
        struct trial t;
        struct crash_log *log = new_log(&t, recipe);
        struct qcow2_disk *disk = open_disk(io_crash_open(log), false);
        struct qcow2_error err;

        expect_case("%s; %s", changes[i % NR_CHANGES], recipe);
        EXPECT_OK(make_change(disk, i % NR_CHANGES, &err), &err);
        EXPECT_OK(qcow2_close(disk, &err), &err);
        crash_log_enumerate(log, &options, check_state, &t, NULL);
        EXPECT(t.nr_set > 0 && t.nr_changed > 0,
               "%u states with the bit, %u changed ones", t.nr_set,
               t.nr_changed);
        crash_log_free(log);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_changes_before_the_bit_is_durably_cleared),
    };

    int failed = cmocka_run_group_tests(tests, NULL, NULL);

    states_print();
    return failed;
}
