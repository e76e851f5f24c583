/* SPDX-License-Identifier: BSD-3-Clause */
/* test-salvage: of a source with sectors that cannot be read convert keeps
 * every other sector, and finds them with few reads.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/error.h"
#include "expect.h"
#include "io-mem.h"
#include "layers.h"
#include "disk/open.h"
#include "tmpdir.h"

enum { SECTOR = 512, MAX_BAD = 8 };

/* A file of which some sectors fail. */
struct scratched {
    struct io io;
    struct io *below;
    uint64_t bad[MAX_BAD]; /* host offsets of sectors; ends with UINT64_MAX */
    unsigned *nr_reads;    /* atomic */
};

static void
scratched_close(struct io *io)
{
    io_close(((struct scratched *)io)->below);
    free(io->name);
    free(io);
}

static int
scratched_preadv(struct io *io, const struct iovec *iov, int nr_iov,
                 uint64_t host_off, struct qcow2_error *err)
{
    struct scratched *s = (struct scratched *)io;
    uint64_t end = host_off;

    for (int i = 0; i < nr_iov; i++)
        end += iov[i].iov_len;
    __atomic_add_fetch(s->nr_reads, 1, __ATOMIC_RELAXED);
    for (unsigned i = 0; s->bad[i] != UINT64_MAX; i++)
        if (s->bad[i] < end && s->bad[i] + SECTOR > host_off)
            return error_set(err, EIO, "a bad sector");
    return io_preadv(s->below, iov, nr_iov, host_off, err);
}

static int
scratched_get_size(struct io *io, uint64_t *size, struct qcow2_error *err)
{
    return io_get_size(((struct scratched *)io)->below, size, err);
}

static const struct io_ops scratched_ops = {
    .close = scratched_close,
    .preadv = scratched_preadv,
    .get_size = scratched_get_size,
};

static struct io *
scratch(struct mem *m, const uint64_t *bad, unsigned nr, unsigned *nr_reads)
{
    struct scratched *s = calloc(1, sizeof *s);

    EXPECT(s && nr < MAX_BAD, "memory");
    s->below = io_mem_open(m, true);
    s->io = *s->below;
    s->io.ops = &scratched_ops;
    s->io.name = strdup("scratched");
    memcpy(s->bad, bad, nr * sizeof *bad);
    s->bad[nr] = UINT64_MAX;
    s->nr_reads = nr_reads;
    return &s->io;
}

static void
run(struct qcow2_disk *disk, const struct qcow2_convert_options *o)
{
    struct qcow2_error err;
    struct qcow2_job *job = qcow2_convert(&disk, 1, tmpdir_path("target"), o,
                                          &err);

    EXPECT(job, "%s", err.text);
    EXPECT_OK(qcow2_job_run(job, NULL, NULL, &err), &err);
    qcow2_job_free(job);
}

static void
of_a_raw_disk_the_bad_sectors_alone_are_lost(void **state)
{
    static const struct {
        uint64_t bad[MAX_BAD];
        unsigned nr, max_reads;
    } cases[] = {
        { { 5 * SECTOR }, 1, 60 },
        { { 0 }, 1, 60 },
        { { (4 << 20) + 1 * SECTOR }, 1, 60 }, /* the part at the end */
        { { 4096 - SECTOR, 4096, 8192 + SECTOR, 2 << 20 }, 4, 150 },
    };
    enum { SIZE = (4 << 20) + 2 * SECTOR - 12 };
    unsigned char *bytes = malloc(SIZE), *want = malloc(SIZE);

    (void)state;
    EXPECT(bytes && want, "memory");
    pattern_fill(bytes, SIZE, 1, 0);
    for (unsigned i = 0; i < 2 * sizeof cases / sizeof cases[0]; i++) {
        struct qcow2_options options = QCOW2_OPTIONS_INIT;
        struct qcow2_convert_options o = {
            .format = QCOW2_FORMAT_RAW, .ignore_read_errors = true,
            .skip_bytes = i % 2 ? 700 : 0,
        };
        struct mem *m = mem_new(bytes, SIZE);
        struct qcow2_disk *disk;
        struct qcow2_error err;
        unsigned nr_reads = 0;

        tmpdir_clear();
        expect_case("case %u", i);
        memcpy(want, bytes, SIZE);
        for (unsigned n = 0; n < cases[i / 2].nr; n++) {
            uint64_t at = cases[i / 2].bad[n];

            memset(want + at, 0, at + SECTOR < SIZE ? SECTOR : SIZE - at);
        }
        options.readonly = true;
        options.format = QCOW2_FORMAT_RAW;
        disk = disk_open_io(scratch(m, cases[i / 2].bad, cases[i / 2].nr,
                                    &nr_reads),
                            "scratched", &options, &err);
        EXPECT(disk, "%s", err.text);
        run(disk, &o);
        qcow2_close(disk, NULL);
        mem_free(m);
        layers_expect("target", QCOW2_FORMAT_RAW, want + o.skip_bytes,
                      SIZE - o.skip_bytes);
        EXPECT(nr_reads <= cases[i / 2].max_reads, "%u reads", nr_reads);
    }
    free(bytes);
    free(want);
}

/* 8 bytes, the most significant one first. */
static uint64_t
number(const unsigned char *p)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < 8; i++)
        n = n << 8 | p[i];
    return n;
}

/* An L2 table that cannot be read takes all that it maps with it, without a
 * read for each sector; a sector of data takes itself. */
static void
of_an_image_what_its_tables_map_is_kept(void **state)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_convert_options o = {
        .format = QCOW2_FORMAT_RAW, .ignore_read_errors = true,
    };
    struct builder *b = builder_new();
    unsigned char *want = calloc(1, 4 << 20);
    const unsigned char *bytes;
    struct qcow2_disk *disk;
    struct qcow2_error err;
    unsigned nr_reads = 0;
    uint64_t bad[2], data;
    size_t nr_bytes;
    struct mem *m;

    (void)state;
    tmpdir_clear();
    expect_case("an image");
    /* Tables of 512 clusters of 4 KiB: 2 MiB each. */
    builder_add(b, "cluster 4096; size 4M; data 0-511 1; data 512-1023 2");
    bytes = builder_bytes(b, &nr_bytes);
    builder_overlay(b, -1, want, 4 << 20);
    m = mem_new(bytes, nr_bytes);
    for (data = 0; memcmp(bytes + data, want + (3 << 20), 4096) != 0;)
        data += 4096;
    /* The first sector of the first L2 table. */
    bad[0] = number(bytes + number(bytes + 40)) & 0xffffffffffffff;
    bad[1] = data + 3 * SECTOR;
    memset(want, 0, 2 << 20);
    memset(want + (3 << 20) + 3 * SECTOR, 0, SECTOR);
    options.readonly = true;
    disk = disk_open_io(scratch(m, bad, 2, &nr_reads), "scratched", &options,
                        &err);
    EXPECT(disk, "%s", err.text);
    run(disk, &o);
    qcow2_close(disk, NULL);
    layers_expect("target", QCOW2_FORMAT_RAW, want, 4 << 20);
    EXPECT(nr_reads < 4096, "%u reads", nr_reads);
    mem_free(m);
    builder_free(b);
    free(want);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(of_a_raw_disk_the_bad_sectors_alone_are_lost),
        cmocka_unit_test(of_an_image_what_its_tables_map_is_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
