/* SPDX-License-Identifier: BSD-3-Clause */
/* test-open.c: opening and closing disks, and what their requests check. */
#include "disk/open.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "audit.h"
#include "builder.h"
#include "expect.h"
#include "io-fault.h"
#include "io-mem.h"
#include "rng.h"
#include "tmpdir.h"

static const struct qcow2_options defaults = { .fd = -1 };
static const struct qcow2_options readonly = { .fd = -1, .readonly = true };

static struct mem *
mem_of(const char *recipe)
{
    struct builder *b = builder_new();
    const unsigned char *bytes;
    size_t nr_bytes;
    struct mem *m;

    expect_case("%s", recipe);
    builder_add(b, "%s", recipe);
    bytes = builder_bytes(b, &nr_bytes);
    m = mem_new(bytes, nr_bytes);
    builder_free(b);
    return m;
}

/* A disk on the file, over a backend that can fail if there is a plan. */
static struct qcow2_disk *
try_open(struct mem *m, struct fault_plan *plan,
         const struct qcow2_options *options, struct qcow2_error *err)
{
    struct io *io = io_mem_open(m, options->readonly);

    if (plan)
        io = io_fault_new(io, plan);
    return disk_open_io(io, "memory", options, err);
}

static struct qcow2_disk *
open_mem(struct mem *m, struct fault_plan *plan,
         const struct qcow2_options *options)
{
    struct qcow2_error err = { 0 };
    struct qcow2_disk *disk = try_open(m, plan, options, &err);

    EXPECT(disk, "%s", err.text);
    return disk;
}

static void
expect_refused(struct mem *m, const struct qcow2_options *options,
               int errnum, const char *text)
{
    struct qcow2_error err = { 0 };

    expect_step("\"%s\" expected", text);
    EXPECT(!try_open(m, NULL, options, &err), "was opened");
    EXPECT(err.errnum == errnum && strstr(err.text, text), "errno %d: %s",
           err.errnum, err.text);
}

/* call fails and fills err. */
#define EXPECT_FAILS(call, err, want, part)                             \
    do {                                                                \
        memset((err), 0, sizeof *(err));                                \
        EXPECT((call) == -1, "succeeded");                              \
        EXPECT((err)->errnum == (want) && strstr((err)->text, (part)),  \
               "errno %d: %s", (err)->errnum, (err)->text);             \
    } while (0)

static void
expect_clean(struct mem *m)
{
    const unsigned char *bytes;
    uint64_t nr_bytes;
    struct audit a;

    bytes = mem_bytes(m, &nr_bytes);
    audit_image(bytes, nr_bytes, &a);
    EXPECT(audit_is_clean(&a), "%u corruptions, %u leaks: %s",
           a.nr_corruptions, a.nr_leaks, a.first);
}

/* Sum of what the map says of a range. */
struct sums {
    uint64_t data, zero, hole;
};

static int
add_extent(void *opaque, const struct qcow2_extent *e)
{
    struct sums *s = opaque;

    *(e->zero ? &s->zero : &s->data) += e->nr_bytes;
    s->hole += e->hole ? e->nr_bytes : 0;
    return 0;
}

static struct sums
map_of(struct qcow2_disk *disk)
{
    struct sums s = { 0, 0, 0 };
    struct qcow2_error err;

    EXPECT_OK(qcow2_map(disk, qcow2_get_size(disk), 0, add_extent, &s, &err),
              &err);
    return s;
}

/* Opening. */

static void
test_format_is_found_or_said(void **state)
{
    struct qcow2_options options = defaults;
    struct mem *image = mem_of("size 1M"), *raw = mem_new("some", 4);
    struct mem *vmdk = mem_new("KDMV", 4), *empty = mem_new("", 0);
    struct qcow2_disk *disk;

    (void)state;
    disk = open_mem(image, NULL, &options);
    assert_int_equal(qcow2_get_format(disk), QCOW2_FORMAT_QCOW2);
    assert_int_equal(qcow2_get_size(disk), 1 << 20);
    qcow2_close(disk, NULL);
    expect_refused(raw, &options, EINVAL, "not a qcow2 image");
    expect_refused(vmdk, &options, EINVAL, "looks like vmdk");

    options.probe_raw = true;
    disk = open_mem(raw, NULL, &options);
    assert_int_equal(qcow2_get_format(disk), QCOW2_FORMAT_RAW);
    assert_int_equal(qcow2_get_size(disk), 4);
    qcow2_close(disk, NULL);
    disk = open_mem(empty, NULL, &options);
    assert_int_equal(qcow2_get_size(disk), 0);
    qcow2_close(disk, NULL);
    disk = open_mem(image, NULL, &options);
    assert_int_equal(qcow2_get_format(disk), QCOW2_FORMAT_QCOW2);
    qcow2_close(disk, NULL);
    expect_refused(vmdk, &options, EINVAL, "looks like vmdk");

    options.format = QCOW2_FORMAT_RAW;
    disk = open_mem(image, NULL, &options);
    assert_int_equal(qcow2_get_format(disk), QCOW2_FORMAT_RAW);
    qcow2_close(disk, NULL);
    options.format = QCOW2_FORMAT_QCOW2;
    expect_refused(raw, &options, EINVAL, "not a qcow2 image");

    mem_free(image);
    mem_free(raw);
    mem_free(vmdk);
    mem_free(empty);
}

static void
test_properties_are_those_of_the_image(void **state)
{
    struct mem *m = mem_of("cluster 4K; size 1000001");
    struct mem *v2 = mem_of("version 2; size 1M");
    struct qcow2_disk *disk = open_mem(m, NULL, &readonly);

    (void)state;
    assert_int_equal(qcow2_get_size(disk), 1000001);
    assert_int_equal(qcow2_get_cluster_size(disk), 4096);
    assert_true(qcow2_is_readonly(disk));
    assert_true(qcow2_can_fast_zero(disk));
    assert_int_equal(qcow2_get_nr_snapshots(disk), 0);
    qcow2_close(disk, NULL);
    disk = open_mem(v2, NULL, &defaults);
    assert_false(qcow2_is_readonly(disk));
    assert_false(qcow2_can_fast_zero(disk));
    qcow2_close(disk, NULL);
    mem_free(m);
    mem_free(v2);
}

static void
test_readonly_disk_writes_nothing(void **state)
{
    struct mem *m = mem_of("size 1M; autoclear 7; incompatible 0; data 0");
    struct fault_plan plan = FAULT_PLAN_INIT;
    struct qcow2_error err;
    struct qcow2_disk *disk = open_mem(m, &plan, &readonly);
    char byte = 0;

    (void)state;
    EXPECT_OK(qcow2_pread(disk, &byte, 1, 0, &err), &err);
    EXPECT_OK(qcow2_flush(disk, &err), &err);
    EXPECT_FAILS(qcow2_pwrite(disk, &byte, 1, 0, 0, &err), &err, EROFS,
                 "read-only");
    EXPECT_FAILS(qcow2_zero(disk, 1, 0, 0, &err), &err, EROFS, "");
    EXPECT_FAILS(qcow2_trim(disk, 1, 0, 0, &err), &err, EROFS, "");
    EXPECT_OK(qcow2_close(disk, &err), &err);
    assert_int_equal(fault_count(&plan, FAULT_CHANGE | FAULT_FLUSH), 0);
    mem_free(m);
}

static void
test_writable_disk_that_is_not_written_stays_as_it_was(void **state)
{
    struct mem *m = mem_of("size 1M; autoclear 7; data 0");
    struct fault_plan plan = FAULT_PLAN_INIT;
    struct qcow2_disk *disk = open_mem(m, &plan, &defaults);
    struct qcow2_error err;
    char byte;

    (void)state;
    EXPECT_OK(qcow2_pread(disk, &byte, 1, 0, &err), &err);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    assert_int_equal(fault_count(&plan, FAULT_CHANGE), 0);
    mem_free(m);
}

static void
test_autoclear_bits_go_before_the_first_write(void **state)
{
    struct mem *m = mem_of("size 1M; autoclear 7; compatible 9; data 0");
    struct qcow2_disk *disk = open_mem(m, NULL, &defaults);
    struct qcow2_error err;
    uint64_t nr_bytes;

    (void)state;
    assert_int_equal(mem_bytes(m, &nr_bytes)[95], 0x80);
    EXPECT_OK(qcow2_pwrite(disk, "x", 1, 0, 0, &err), &err);
    assert_int_equal(mem_bytes(m, &nr_bytes)[95], 0);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    /* Compatible ones are nobody's business. */
    assert_int_equal(mem_bytes(m, &nr_bytes)[86], 2);
    expect_clean(m);
    mem_free(m);
}

static void
test_corrupt_image_is_served_readonly_only(void **state)
{
    struct mem *m = mem_of("size 1M; incompatible 1; data 0");
    struct qcow2_error err;

    (void)state;
    assert_null(try_open(m, NULL, &defaults, &err));
    assert_int_equal(err.errnum, EROFS);
    assert_int_equal(err.hints, QCOW2_HINT_READONLY | QCOW2_HINT_REPAIR);
    qcow2_close(open_mem(m, NULL, &readonly), NULL);
    mem_free(m);
}

static void
test_dirty_image_is_repaired_before_it_is_written(void **state)
{
    struct mem *m = mem_of("size 1M; incompatible 0; data 0-2; leak 1;"
                           "poke refcount[@data[1]/C] = 0;"
                           "poke l2[1] & 0x7fffffffffffffff");
    struct qcow2_disk *disk = open_mem(m, NULL, &readonly);

    (void)state;
    qcow2_close(disk, NULL);
    disk = open_mem(m, NULL, &defaults);
    expect_clean(m);
    qcow2_close(disk, NULL);
    mem_free(m);
}

static void
test_damaged_dirty_image_is_refused_as_it_is(void **state)
{
    struct mem *m = mem_of("size 1M; incompatible 0; data 0;"
                           "poke l2[0] = 0x8000000000000200");
    struct mem *copy = mem_copy(m);
    const unsigned char *before, *after;
    uint64_t size_before, size_after;

    (void)state;
    expect_refused(m, &defaults, EIO, "");
    before = mem_bytes(copy, &size_before);
    after = mem_bytes(m, &size_after);
    assert_int_equal(size_before, size_after);
    assert_memory_equal(before, after, size_after);
    mem_free(m);
    mem_free(copy);
}

static void
test_second_writer_is_kept_out(void **state)
{
    const char *path = tmpdir_path("image");
    struct qcow2_options no_lock = defaults;
    struct qcow2_disk *disk, *other;
    struct qcow2_error err;

    (void)state;
    builder_make(path, "size 1M");
    disk = qcow2_open(path, &defaults, &err);
    EXPECT(disk, "%s", err.text);
    assert_null(qcow2_open(path, &defaults, &err));
    assert_int_equal(err.errnum, EBUSY);
    assert_null(qcow2_open(path, &readonly, &err));
    assert_int_equal(err.errnum, EBUSY);
    no_lock.no_lock = no_lock.readonly = true;
    other = qcow2_open(path, &no_lock, &err);
    EXPECT(other, "%s", err.text);
    qcow2_close(other, NULL);
    qcow2_close(disk, NULL);

    disk = qcow2_open(path, &readonly, &err);
    EXPECT(disk, "%s", err.text);
    other = qcow2_open(path, &readonly, &err);
    EXPECT(other, "%s", err.text);
    assert_null(qcow2_open(path, &defaults, &err));
    qcow2_close(disk, NULL);
    qcow2_close(other, NULL);
    tmpdir_clear();
}

static void
test_failed_open_leaves_nothing(void **state)
{
    struct mem *m = mem_of("size 1M; data 0; snapshot 1 s; data 1");
    uint64_t fired;

    /* The leak checker sees what is left behind. */
    (void)state;
    for (uint64_t nth = 1;; nth++) {
        struct fault_plan plan = FAULT_PLAN_INIT;
        struct qcow2_error err;
        struct qcow2_disk *disk;

        expect_case("read %d fails", (int)nth);
        fault_arm(&plan, FAULT_READ, nth, EIO, FAULT_ONCE);
        disk = try_open(m, &plan, &defaults, &err);
        fired = fault_fired(&plan);
        EXPECT(!disk == (fired > 0), "%d", !disk);
        if (!fired) {
            qcow2_close(disk, NULL);
            break;
        }
        assert_int_equal(err.errnum, EIO);
    }
    mem_free(m);
}

struct log {
    unsigned topics;
    char text[4096];
};

static void
log_debug(void *opaque, unsigned topic, const char *text)
{
    struct log *log = opaque;

    log->topics |= topic;
    strncat(log->text, text, sizeof log->text - strlen(log->text) - 1);
}

static void
test_debug_messages_are_those_asked_for(void **state)
{
    struct mem *m = mem_of("size 1M; data 0");
    struct qcow2_options options = defaults;
    struct qcow2_error err;
    struct qcow2_disk *disk;
    struct log log = { 0 };

    (void)state;
    options.debug = log_debug;
    options.debug_opaque = &log;
    options.debug_topics = QCOW2_DEBUG_OPEN | QCOW2_DEBUG_FLUSH;
    disk = open_mem(m, NULL, &options);
    assert_non_null(strstr(log.text, "version 3, 1048576 bytes in clusters "
                           "of 65536"));
    EXPECT_OK(qcow2_pwrite(disk, "x", 1, 1 << 19, QCOW2_FUA, &err), &err);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    assert_int_equal(log.topics, QCOW2_DEBUG_OPEN | QCOW2_DEBUG_FLUSH);
    mem_free(m);
}

static void
test_features_are_told(void **state)
{
    (void)state;
    assert_true(qcow2_has_feature("zlib"));
    assert_int_equal(qcow2_has_feature("zstd"),
                     compress_supported(COMPRESS_ZSTD));
    qcow2_has_feature("libdeflate");
    assert_false(qcow2_has_feature("teleportation"));
}

/* Requests. */

static void
expect_bounds(struct qcow2_disk *disk)
{
    uint64_t size = qcow2_get_size(disk);
    struct sums sums = { 0, 0, 0 };
    struct qcow2_error err;
    char buf[16] = "";

    EXPECT_FAILS(qcow2_pread(disk, buf, 1, size, &err), &err, EINVAL,
                 "inside the disk");
    EXPECT_FAILS(qcow2_pread(disk, buf, 16, size - 15, &err), &err, EINVAL,
                 "");
    EXPECT_FAILS(qcow2_pread(disk, buf, 2, UINT64_MAX, &err), &err, EINVAL,
                 "");
    EXPECT_FAILS(qcow2_pwrite(disk, buf, 2, UINT64_MAX, 0, &err), &err,
                 EINVAL, "");
    EXPECT_FAILS(qcow2_pwrite(disk, buf, 2, size - 1, 0, &err), &err, EINVAL,
                 "");
    EXPECT_FAILS(qcow2_zero(disk, UINT64_MAX, 1, 0, &err), &err, EINVAL, "");
    EXPECT_FAILS(qcow2_trim(disk, size, 1, 0, &err), &err, EINVAL, "");
    EXPECT_FAILS(qcow2_map(disk, 1, size, add_extent, &sums, &err), &err,
                 EINVAL, "");
    EXPECT_FAILS(qcow2_prefetch(disk, 1, size, &err), &err, EINVAL, "");

    EXPECT_OK(qcow2_pread(disk, buf, 0, size, &err), &err);
    EXPECT_OK(qcow2_pwrite(disk, buf, 0, size, 0, &err), &err);
    EXPECT_OK(qcow2_pwrite(disk, buf, 0, 0, QCOW2_FUA, &err), &err);
    EXPECT_OK(qcow2_zero(disk, 0, size, QCOW2_MAY_TRIM, &err), &err);
    EXPECT_OK(qcow2_trim(disk, 0, 0, 0, &err), &err);
    EXPECT_OK(qcow2_map(disk, 0, size, add_extent, &sums, &err), &err);
    EXPECT_OK(qcow2_pread(disk, buf, 16, size - 16, &err), &err);
    EXPECT_OK(qcow2_prefetch(disk, size, 0, &err), &err);
}

static void
test_requests_must_lie_inside_the_disk(void **state)
{
    struct qcow2_options options = defaults;
    struct mem *m = mem_of("size 1000001; data 0-3");
    struct qcow2_disk *disk;

    (void)state;
    disk = open_mem(m, NULL, &options);
    expect_bounds(disk);
    EXPECT(qcow2_close(disk, NULL) == 0, "close");
    options.format = QCOW2_FORMAT_RAW;
    disk = open_mem(m, NULL, &options);
    expect_bounds(disk);
    EXPECT(qcow2_close(disk, NULL) == 0, "close");
    mem_free(m);
}

static void
test_what_is_written_is_there_after_close(void **state)
{
    struct mem *m = mem_of("cluster 4K; size 1M; data 0-3");
    struct qcow2_disk *disk = open_mem(m, NULL, &defaults);
    unsigned char in[10000], out[10000];
    struct qcow2_error err;

    (void)state;
    pattern_fill(in, sizeof in, 5, 0);
    EXPECT_OK(qcow2_pwrite(disk, in, sizeof in, 12345, 0, &err), &err);
    EXPECT_OK(qcow2_zero(disk, 100, 12345, 0, &err), &err);
    memset(in, 0, 100);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    expect_clean(m);
    disk = open_mem(m, NULL, &readonly);
    EXPECT_OK(qcow2_pread(disk, out, sizeof out, 12345, &err), &err);
    expect_same("disk", out, in, sizeof in, 12345);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    mem_free(m);
}

static void
test_fua_is_durable_when_it_returns(void **state)
{
    struct mem *m = mem_of("size 1M; data 0");
    struct fault_plan plan = FAULT_PLAN_INIT;
    struct qcow2_disk *disk = open_mem(m, &plan, &defaults);
    struct qcow2_error err;

    (void)state;
    EXPECT_OK(qcow2_pwrite(disk, "x", 1, 0, 0, &err), &err);
    fault_reset_counts(&plan);
    EXPECT_OK(qcow2_pwrite(disk, "x", 1, 0, 0, &err), &err);
    assert_int_equal(fault_count(&plan, FAULT_FLUSH), 0);
    EXPECT_OK(qcow2_pwrite(disk, "x", 1, 0, QCOW2_FUA, &err), &err);
    assert_int_equal(fault_count(&plan, FAULT_FLUSH), 1);
    fault_reset_counts(&plan);
    EXPECT_OK(qcow2_zero(disk, 65536, 0, QCOW2_FUA, &err), &err);
    assert_true(fault_count(&plan, FAULT_FLUSH) > 0);
    EXPECT_OK(qcow2_pwrite(disk, "x", 1, 0, QCOW2_FUA, &err), &err);
    fault_reset_counts(&plan);
    EXPECT_OK(qcow2_trim(disk, 65536, 0, QCOW2_FUA, &err), &err);
    assert_true(fault_count(&plan, FAULT_FLUSH) > 0);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    mem_free(m);
}

static void
test_prefetch_asks_for_data_only(void **state)
{
    struct mem *m = mem_of("size 1M; data 0-3; zero 4-6; compressed 8");
    struct qcow2_disk *disk = open_mem(m, NULL, &defaults);
    struct qcow2_error err;

    (void)state;
    EXPECT_OK(qcow2_prefetch(disk, 1 << 20, 0, &err), &err);
    EXPECT_OK(qcow2_prefetch(disk, 77, 12345, &err), &err);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    mem_free(m);
}

static int
stop_at_once(void *opaque, const struct qcow2_extent *e)
{
    (void)e;
    ++*(int *)opaque;
    return 1;
}

static void
test_map_ends_when_told(void **state)
{
    struct mem *m = mem_of("size 1M; data 0; data 2; data 4");
    struct qcow2_disk *disk = open_mem(m, NULL, &defaults);
    struct qcow2_error err;
    int calls = 0;

    (void)state;
    EXPECT_OK(qcow2_map(disk, 1 << 20, 0, stop_at_once, &calls, &err), &err);
    assert_int_equal(calls, 1);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    mem_free(m);
}

static void
expect_failed_flush_is_sticky(enum qcow2_format format, struct mem *m)
{
    struct fault_plan plan = FAULT_PLAN_INIT;
    struct qcow2_options options = defaults;
    struct qcow2_disk *disk;
    struct qcow2_error err;
    char byte;

    options.format = format;
    disk = open_mem(m, &plan, &options);
    EXPECT_OK(qcow2_pwrite(disk, "x", 1, 0, 0, &err), &err);
    fault_arm(&plan, FAULT_FLUSH, 1, EIO, FAULT_ONCE);
    EXPECT_FAILS(qcow2_flush(disk, &err), &err, EIO, "");
    EXPECT_FAILS(qcow2_flush(disk, &err), &err, EIO, "");
    EXPECT_FAILS(qcow2_pwrite(disk, "x", 1, 0, 0, &err), &err, EIO,
                 "restart the process");
    EXPECT_FAILS(qcow2_zero(disk, 1, 0, 0, &err), &err, EIO, "");
    EXPECT_FAILS(qcow2_trim(disk, 4096, 0, 0, &err), &err, EIO, "");
    EXPECT_FAILS(qcow2_pwrite(disk, "x", 0, 0, QCOW2_FUA, &err), &err, EIO,
                 "");
    EXPECT_OK(qcow2_pread(disk, &byte, 1, 0, &err), &err);
    EXPECT_FAILS(qcow2_close(disk, &err), &err, EIO, "");
    mem_free(m);
}

static void
test_failed_flush_ends_writing(void **state)
{
    (void)state;
    expect_failed_flush_is_sticky(QCOW2_FORMAT_RAW, mem_new(NULL, 1 << 20));
    expect_failed_flush_is_sticky(QCOW2_FORMAT_QCOW2,
                                  mem_of("size 1M; data 0"));
}

/* Zero detection. */

/* Writes zeroes, data and zeroes over data, one cluster each and a bit. */
static struct sums
write_mixed(enum qcow2_detect_zeroes detect, enum qcow2_format format)
{
    enum { N = 4 * 4096 };
    struct mem *m = format == QCOW2_FORMAT_RAW ? mem_new(NULL, 1 << 20)
                    : mem_of("cluster 4K; size 1M; data 0-255");
    struct qcow2_options options = defaults;
    unsigned char buf[N] = { 0 }, out[N];
    struct qcow2_disk *disk;
    struct qcow2_error err;
    struct sums sums;

    options.detect_zeroes = detect;
    options.format = format;
    disk = open_mem(m, NULL, &options);
    memset(out, 0xaa, sizeof out);
    for (unsigned i = 0; i < 64; i++)
        EXPECT_OK(qcow2_pwrite(disk, out, N, i * N, 0, &err), &err);
    pattern_fill(buf + 5000, 4096, 3, 0);
    EXPECT_OK(qcow2_pwrite(disk, buf, N, 100, 0, &err), &err);
    EXPECT_OK(qcow2_pwrite(disk, buf, N, 32768, QCOW2_FUA, &err), &err);
    EXPECT_OK(qcow2_pread(disk, out, N, 100, &err), &err);
    expect_same("unaligned", out, buf, N, 100);
    EXPECT_OK(qcow2_pread(disk, out, N, 32768, &err), &err);
    expect_same("aligned", out, buf, N, 32768);
    sums = map_of(disk);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    if (format == QCOW2_FORMAT_QCOW2)
        expect_clean(m);
    mem_free(m);
    return sums;
}

static void
test_written_zeroes_become_what_was_asked_for(void **state)
{
    struct sums off, on, unmap;

    (void)state;
    off = write_mixed(QCOW2_DETECT_ZEROES_OFF, QCOW2_FORMAT_QCOW2);
    on = write_mixed(QCOW2_DETECT_ZEROES_ON, QCOW2_FORMAT_QCOW2);
    unmap = write_mixed(QCOW2_DETECT_ZEROES_UNMAP, QCOW2_FORMAT_QCOW2);
    assert_int_equal(off.zero, 0);
    /* One whole cluster of the unaligned write, two of the aligned one. */
    assert_int_equal(on.zero, 3 * 4096);
    assert_int_equal(on.hole, 0);
    assert_int_equal(unmap.zero, 3 * 4096);
    assert_int_equal(unmap.hole, 3 * 4096);
}

static void
test_written_zeroes_are_detected_on_raw_disks(void **state)
{
    (void)state;
    write_mixed(QCOW2_DETECT_ZEROES_OFF, QCOW2_FORMAT_RAW);
    write_mixed(QCOW2_DETECT_ZEROES_ON, QCOW2_FORMAT_RAW);
    write_mixed(QCOW2_DETECT_ZEROES_UNMAP, QCOW2_FORMAT_RAW);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_format_is_found_or_said),
        cmocka_unit_test(test_properties_are_those_of_the_image),
        cmocka_unit_test(test_readonly_disk_writes_nothing),
        cmocka_unit_test(
            test_writable_disk_that_is_not_written_stays_as_it_was),
        cmocka_unit_test(test_autoclear_bits_go_before_the_first_write),
        cmocka_unit_test(test_corrupt_image_is_served_readonly_only),
        cmocka_unit_test(test_dirty_image_is_repaired_before_it_is_written),
        cmocka_unit_test(test_damaged_dirty_image_is_refused_as_it_is),
        cmocka_unit_test(test_second_writer_is_kept_out),
        cmocka_unit_test(test_failed_open_leaves_nothing),
        cmocka_unit_test(test_debug_messages_are_those_asked_for),
        cmocka_unit_test(test_features_are_told),
        cmocka_unit_test(test_requests_must_lie_inside_the_disk),
        cmocka_unit_test(test_what_is_written_is_there_after_close),
        cmocka_unit_test(test_fua_is_durable_when_it_returns),
        cmocka_unit_test(test_prefetch_asks_for_data_only),
        cmocka_unit_test(test_map_ends_when_told),
        cmocka_unit_test(test_failed_flush_ends_writing),
        cmocka_unit_test(test_written_zeroes_become_what_was_asked_for),
        cmocka_unit_test(test_written_zeroes_are_detected_on_raw_disks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
