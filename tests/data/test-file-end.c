/* SPDX-License-Identifier: BSD-3-Clause */
/* test-file-end: where an image's file ends: at a whole cluster, and not far
 * behind what is in use, whatever a client does that never flushes.
 */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "builder.h"
#include "disk/open-disk.h"
#include "expect.h"
#include "format/format.h"
#include "io-mem.h"
#include "oracle.h"
#include "rig.h"
#include "tmpdir.h"

enum { K = 1024, M = 1024 * K, C = 64 * K };

static void
open_rig(struct rig *r, const char *recipe)
{
    expect_case("%s", recipe);
    rig_init(r, recipe, 0);
    rig_open(r);
}

static void
close_rig(struct rig *r)
{
    rig_close(r);
    rig_free(r);
}

static uint64_t
file_size(struct rig *r)
{
    uint64_t nr_bytes;

    mem_bytes(r->mem, &nr_bytes);
    return nr_bytes;
}

static void
the_file_ends_with_a_whole_cluster(void **state)
{
    static const uint32_t cluster_sizes[] = { 512, 4 * K, C, 2 * M };

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        char recipe[100];
        struct rig r;

        snprintf(recipe, sizeof recipe, "cluster %u; size 2M; data 0 1",
                 cluster_sizes[i]);
        open_rig(&r, recipe);
        rig_flush(&r);
        fault_reset_counts(&r.plan);
        rig_play(&r, OP_WRITE, M, 9, 0);
        rig_flush(&r);
        EXPECT(file_size(&r) % cluster_sizes[i] == 0, "%llu bytes",
               (unsigned long long)file_size(&r));
        EXPECT(fault_count(&r.plan, FAULT_FLUSH) <= 2, "%llu barriers",
               (unsigned long long)fault_count(&r.plan, FAULT_FLUSH));
        rig_play(&r, OP_WRITE, M + M / 2, 9, QCOW2_FUA);
        EXPECT(file_size(&r) % cluster_sizes[i] == 0, "FUA: %llu bytes",
               (unsigned long long)file_size(&r));
        close_rig(&r);
    }
}

static void
a_closed_file_ends_with_a_whole_cluster(void **state)
{
    struct qcow2_error err;
    struct rig r;

    (void)state;
    open_rig(&r, "cluster 64K; size 2M; data 0 1");
    rig_play(&r, OP_WRITE, M, 9, 0);
    EXPECT_OK(qcow2_close(r.play.disk, &err), &err);
    EXPECT(file_size(&r) % C == 0, "%llu bytes",
           (unsigned long long)file_size(&r));
    rig_end(&r);
    rig_free(&r);
}

static void
the_end_is_given_back_with_the_flush(void **state)
{
    struct rig r;
    uint64_t before;

    (void)state;
    open_rig(&r, "cluster 64K; size 8M; data 0-15 1");
    rig_flush(&r);
    before = file_size(&r);
    rig_play(&r, OP_WRITE, 2 * M, 6 * M, 0);
    rig_flush(&r);
    EXPECT(file_size(&r) >= before + 6 * M, "not longer");
    rig_play(&r, OP_TRIM, 2 * M, 6 * M, 0);
    EXPECT(file_size(&r) >= before + 6 * M, "cut before the flush");
    rig_flush(&r);
    EXPECT(file_size(&r) == before, "%llu bytes, before %llu",
           (unsigned long long)file_size(&r), (unsigned long long)before);
    /* What is written there next reads as zeroes around it. */
    for (unsigned i = 0; i < 8; i++)
        rig_play(&r, OP_WRITE, 3 * M + i * 5 * C + 700, 300, 0);
    rig_play(&r, OP_READ, 0, 8 * M, 0);
    close_rig(&r);
}

/* Too little to be worth it while the disk is in use. */
static void
all_of_it_is_given_back_at_the_close(void **state)
{
    struct qcow2_error err;
    struct rig r;
    uint64_t before;

    (void)state;
    open_rig(&r, "cluster 64K; size 8M; data 0-100 1");
    before = file_size(&r);
    rig_play(&r, OP_WRITE, 7 * M, C, 0);
    rig_flush(&r);
    rig_play(&r, OP_TRIM, 7 * M, C, 0);
    rig_flush(&r);
    EXPECT(file_size(&r) == before + C, "%llu bytes",
           (unsigned long long)file_size(&r));
    EXPECT_OK(qcow2_close(r.play.disk, &err), &err);
    EXPECT(file_size(&r) == before, "%llu bytes, before %llu",
           (unsigned long long)file_size(&r), (unsigned long long)before);
    rig_end(&r);
    rig_free(&r);
}

static void
without_discard_the_file_keeps_its_length(void **state)
{
    struct qcow2_error err;
    struct rig r;
    uint64_t before;

    (void)state;
    expect_case("no_discard");
    rig_init(&r, "cluster 64K; size 8M; data 0-15 1; compressed 16-31 2", 0);
    r.options.no_discard = true;
    rig_open(&r);
    before = file_size(&r);
    rig_play(&r, OP_WRITE, M, M, 0);
    rig_flush(&r);
    rig_play(&r, OP_ZERO, 0, 2 * M, QCOW2_MAY_TRIM);
    EXPECT_OK(qcow2_close(r.play.disk, &err), &err);
    EXPECT(file_size(&r) >= before, "%llu bytes, before %llu",
           (unsigned long long)file_size(&r), (unsigned long long)before);
    rig_end(&r);
    rig_free(&r);
}

static uint64_t
most_bytes(uint64_t disk_bytes)
{
    return disk_bytes + 2 * M                        /* metadata */
           + MIN_QUARANTINE_BYTES + 32 * (uint64_t)M; /* one slice more */
}

static void
a_client_that_never_flushes_does_not_fill_the_host(void **state)
{
    struct rig r;
    uint64_t most = 0;

    (void)state;
    open_rig(&r, "cluster 64K; size 64M; data 0 1");
    for (unsigned i = 0; i < 30; i++) {
        rig_play(&r, OP_TRIM, i % 2 * 32 * M, 32 * M, 0);
        rig_play(&r, OP_WRITE, i % 2 * 32 * M, 32 * M, 0);
        most = file_size(&r) > most ? file_size(&r) : most;
    }
    EXPECT(most <= most_bytes(64 * M), "%llu bytes",
           (unsigned long long)most);
    rig_play(&r, OP_TRIM, 0, 64 * M, 0);
    rig_flush(&r);
    EXPECT(file_size(&r) <= M, "%llu bytes are left of %llu",
           (unsigned long long)file_size(&r), (unsigned long long)most);
    close_rig(&r);
}

static uint64_t
allocated(struct rig *r)
{
    struct io *io = io_mem_open(r->mem, true);
    uint64_t nr_bytes = 0;

    EXPECT(io_get_allocated(io, &nr_bytes, NULL) == 0, "size");
    io_close(io);
    return nr_bytes;
}

/* The file has free clusters by then, which are holes. */
static void
small_trims_are_bounded_as_well(void **state)
{
    struct rig r;
    uint64_t most = 0;

    (void)state;
    open_rig(&r, "cluster 4K; size 64M; data 0 1");
    for (unsigned i = 0; i < 200; i++) {
        rig_play(&r, OP_TRIM, i % 64 * M, M, 0);
        rig_play(&r, OP_WRITE, i % 64 * M, M, 0);
        most = allocated(&r) > most ? allocated(&r) : most;
    }
    EXPECT(most <= 64 * M + 2 * M + MIN_QUARANTINE_BYTES + 2 * M,
           "%llu bytes", (unsigned long long)most);
    close_rig(&r);
}

/* A table that has lost its refcount is damage, which is not made worse. */
static void
metadata_without_refcount_is_not_cut_off(void **state)
{
    struct rig r;
    uint64_t before;
    struct qcow2_error err;

    (void)state;
    open_rig(&r, "cluster 4K; size 8M; data 0-7 1; table 512;"
             "poke refcount[@l2[512]/C] = 0; poke refcount[@l1/C] = 0;"
             "poke refcount[@reftable/C] = 0;"
             "poke refcount[@refblock[0]/C] = 0");
    before = file_size(&r);
    rig_play(&r, OP_TRIM, 0, 8 * 4 * K, 0);
    rig_flush(&r);
    EXPECT_OK(qcow2_close(r.play.disk, &err), &err);
    EXPECT(file_size(&r) == before, "%llu bytes, before %llu",
           (unsigned long long)file_size(&r), (unsigned long long)before);
    rig_end(&r);
    rig_free(&r);
}

static void
what_is_cut_off_is_no_longer_inside(void **state)
{
    struct qcow2_error err;
    struct image *img;
    struct rig r;
    uint64_t end;

    (void)state;
    open_rig(&r, "cluster 64K; size 8M; data 0-15 1");
    img = r.play.disk->file->image;
    rig_play(&r, OP_WRITE, 2 * M, 6 * M, 0);
    rig_flush(&r);
    end = file_size(&r);
    EXPECT_OK(image_check_inside(img, end - C, C, &err), &err);
    rig_play(&r, OP_TRIM, 2 * M, 6 * M, 0);
    rig_flush(&r);
    EXPECT(file_size(&r) < end, "not cut");
    EXPECT(img->known_end <= file_size(&r), "known up to %llu of %llu",
           (unsigned long long)img->known_end,
           (unsigned long long)file_size(&r));
    close_rig(&r);
}

/* A backend whose next truncation, once armed, has another thread write to the
 * disk first, for as long as it takes unless it must wait for the truncation.
 */
struct slow {
    struct io io;
    struct io *below;
    struct rig *rig;
    pthread_t writer;
    uint64_t off, nr_bytes;  /* what it writes */
    bool armed, begun;
    bool done;               /* atomic */
    int result;
};

static void *
write_meanwhile(void *arg)
{
    struct slow *s = arg;

    s->result = qcow2_pwrite(s->rig->play.disk, s->rig->play.model.disk
                                                    + s->off,
                             s->nr_bytes, s->off, 0, NULL);
    __atomic_store_n(&s->done, true, __ATOMIC_SEQ_CST);
    return NULL;
}

static int
slow_truncate(struct io *io, uint64_t size, struct qcow2_error *err)
{
    struct slow *s = (struct slow *)io;

    if (s->armed) {
        s->armed = false;
        s->begun = true;
        pthread_create(&s->writer, NULL, write_meanwhile, s);
        for (unsigned i = 0; i < 20000; i++) {
            if (__atomic_load_n(&s->done, __ATOMIC_SEQ_CST))
                break;
            sched_yield();
        }
    }
    return io_truncate(s->below, size, err);
}

static int
slow_preadv(struct io *io, const struct iovec *iov, int nr, uint64_t off,
            struct qcow2_error *err)
{
    return io_preadv(((struct slow *)io)->below, iov, nr, off, err);
}

static int
slow_pwritev(struct io *io, const struct iovec *iov, int nr, uint64_t off,
             struct qcow2_error *err)
{
    return io_pwritev(((struct slow *)io)->below, iov, nr, off, err);
}

static int
slow_flush(struct io *io, struct qcow2_error *err)
{
    return io_flush(((struct slow *)io)->below, err);
}

static int
slow_zero(struct io *io, uint64_t off, uint64_t nr_bytes, unsigned flags,
          struct qcow2_error *err)
{
    return io_zero(((struct slow *)io)->below, off, nr_bytes, flags, err);
}

static int
slow_punch(struct io *io, uint64_t off, uint64_t nr_bytes,
           struct qcow2_error *err)
{
    return io_punch(((struct slow *)io)->below, off, nr_bytes, err);
}

static int
slow_get_size(struct io *io, uint64_t *size, struct qcow2_error *err)
{
    return io_get_size(((struct slow *)io)->below, size, err);
}

static void
slow_close(struct io *io)
{
    io_close(((struct slow *)io)->below);
}

static const struct io_ops slow_ops = {
    .close = slow_close, .preadv = slow_preadv, .pwritev = slow_pwritev,
    .flush = slow_flush, .zero = slow_zero, .punch = slow_punch,
    .truncate = slow_truncate, .get_size = slow_get_size,
};

static void
open_slow(struct slow *s, struct rig *r, const char *recipe)
{
    memset(s, 0, sizeof *s);
    expect_case("%s", recipe);
    rig_init(r, recipe, 0);
    rig_start(r);
    s->rig = r;
    s->below = io_mem_open(r->mem, false);
    s->io = *s->below;
    s->io.ops = &slow_ops;
    r->play.disk = rig_open_disk(r, &s->io);
}

/* A flush that truncates, while a range is written. */
static void
flush_and_write(struct slow *s, uint64_t off, uint64_t nr_bytes)
{
    struct rig *r = s->rig;

    s->off = off;
    s->nr_bytes = nr_bytes;
    pattern_fill(r->play.model.disk + off, nr_bytes, 55, off);
    s->done = false;
    s->armed = true;
    rig_flush(r);
    EXPECT(s->begun, "nothing was truncated");
    pthread_join(s->writer, NULL);
    s->begun = false;
    EXPECT(s->result == 0, "the write failed");
    rig_flush(r);
    rig_play(r, OP_READ, 0, r->play.model.size, 0);
}

/* A refblock counts 512 clusters: one more is made as well. */
static void
what_is_written_while_the_end_moves_is_not_cut_off(void **state)
{
    (void)state;
    for (unsigned i = 1; i <= 4; i++) {
        uint64_t most = i * 200 * K;
        struct rig r;
        struct slow s;

        open_slow(&s, &r, "cluster 4K; refcount-bits 64; size 4M;"
                  "data 0-400 1; table 512");
        rig_play(&r, OP_WRITE, 1604 * K, 320 * K, 0);
        rig_flush(&r);
        rig_play(&r, OP_TRIM, 1604 * K, 320 * K, 0);
        flush_and_write(&s, 2 * M, most);
        rig_play(&r, OP_WRITE, 4 * M - 900, 9, 0);
        flush_and_write(&s, 3 * M, most);
        close_rig(&r);
    }
}

/* Its end is looked for where clusters are counted, not all along the hole:
 * that would take as long as somebody made the file. */
static void
a_long_hole_at_the_end_is_cut_off(void **state)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    const char *path = tmpdir_path("long");
    struct qcow2_disk *disk;
    struct qcow2_error err;
    struct stat st;

    (void)state;
    expect_case("a hole of 8 TiB");
    builder_make(path, "cluster 512; size 64K; data 0-9 1");
    assert_int_equal(truncate(path, (off_t)8 << 40), 0);
    disk = qcow2_open(path, &options, &err);
    EXPECT(disk, "%s", err.text);
    EXPECT_OK(qcow2_pwrite(disk, "x", 1, 0, 0, &err), &err);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    assert_int_equal(stat(path, &st), 0);
    EXPECT(st.st_size < 1 << 20, "%lld bytes", (long long)st.st_size);
    oracle_expect_clean(path);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_file_ends_with_a_whole_cluster),
        cmocka_unit_test(a_closed_file_ends_with_a_whole_cluster),
        cmocka_unit_test(the_end_is_given_back_with_the_flush),
        cmocka_unit_test(all_of_it_is_given_back_at_the_close),
        cmocka_unit_test(without_discard_the_file_keeps_its_length),
        cmocka_unit_test(a_client_that_never_flushes_does_not_fill_the_host),
        cmocka_unit_test(small_trims_are_bounded_as_well),
        cmocka_unit_test(metadata_without_refcount_is_not_cut_off),
        cmocka_unit_test(what_is_cut_off_is_no_longer_inside),
        cmocka_unit_test(what_is_written_while_the_end_moves_is_not_cut_off),
        cmocka_unit_test(a_long_hole_at_the_end_is_cut_off),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
