/* SPDX-License-Identifier: BSD-3-Clause */
/* test-store-beside: an image whose guest data are in a file of their own, each
 * cluster at its guest offset and without refcounts (stores.h): random requests
 * against a model, data that are durable before entries point to them, and
 * what such an image refuses. TEST_ROUNDS and TEST_SEED make longer and other
 * runs.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>

#include "disk/open-disk.h"
#include "expect.h"
#include "meta/data.h"
#include "rig.h"
#include "stores.h"
#include "tmpdir.h"

enum { NR_OPS = 300, L2_OFFSET_BITS = 56 };

struct trial {
    struct rig rig;
    uint32_t align;
    struct rng rng;
    struct mem *data;           /* the data file */
    struct beside_state state;
    struct io_ops data_ops, image_ops;  /* with hooks */
    const struct io_ops *data_below, *image_below;
    bool published[MAX_BESIDE_CLUSTERS];
    bool fail_flush;
};

/* Of the test that runs. */
static struct trial *now;

/* --- The order of writes -------------------------------------------------- */

static int
flush_data(struct io *io, struct qcow2_error *err)
{
    if (now->fail_flush) {
        err->errnum = EIO;
        snprintf(err->text, sizeof err->text, "the data file fails");
        return -1;
    }
    if (now->data_below->flush(io, err) == -1)
        return -1;
    memset(now->state.unflushed, 0, sizeof now->state.unflushed);
    return 0;
}

static uint64_t
get_word(const unsigned char *bytes, uint64_t nr_bytes, uint64_t off)
{
    uint64_t word;

    if (off + sizeof word > nr_bytes)
        return 0;
    memcpy(&word, bytes + off, sizeof word);
    return be64toh(word);
}

/* Entries in the file that were not there before: what they point to is
 * durable (I2). */
static void
look_at_table(const unsigned char *bytes, uint64_t nr_bytes,
              uint64_t table_off, uint64_t first)
{
    uint64_t cluster_size = now->rig.play.cluster_size;

    for (uint64_t i = 0; i < cluster_size / 8; i++) {
        uint64_t e = get_word(bytes, nr_bytes, table_off + i * 8);
        bool points = e >> 63 && !(e >> 62 & 1);

        if (first + i >= MAX_BESIDE_CLUSTERS)
            break;
        EXPECT(!points || now->published[first + i]
               || !now->state.unflushed[first + i],
               "the entry of cluster %llu is written before its data are "
               "durable", (unsigned long long)(first + i));
        now->published[first + i] = points;
    }
}

static void
look_at_image(void)
{
    uint64_t nr_bytes, l1_off, cluster_size = now->rig.play.cluster_size;
    const unsigned char *bytes = mem_bytes(now->rig.mem, &nr_bytes);
    uint64_t nr_tables = get_word(bytes, nr_bytes, 32) & UINT32_MAX;

    nr_tables = be32toh(*(const uint32_t *)(bytes + 36));
    l1_off = get_word(bytes, nr_bytes, 40);
    for (uint64_t i = 0; i < nr_tables; i++) {
        uint64_t e = get_word(bytes, nr_bytes, l1_off + i * 8);

        if (e)
            look_at_table(bytes, nr_bytes,
                          e & ((UINT64_C(1) << L2_OFFSET_BITS) - 512),
                          i * (cluster_size / 8));
    }
}

static int
write_image(struct io *io, const struct iovec *iov, int nr_iov,
            uint64_t host_off, struct qcow2_error *err)
{
    int r = now->image_below->pwritev(io, iov, nr_iov, host_off, err);

    if (now->rig.play.cluster_size)
        look_at_image();
    return r;
}

static struct io *
open_data(struct trial *t)
{
    struct io *io = io_mem_open(t->data, false);

    t->data_below = io->ops;
    t->data_ops = *io->ops;
    t->data_ops.flush = flush_data;
    io->ops = &t->data_ops;
    return io;
}

static struct io *
open_image(struct trial *t)
{
    struct io *io = io_mem_open(t->rig.mem, false);

    t->image_below = io->ops;
    t->image_ops = *io->ops;
    t->image_ops.pwritev = write_image;
    io->ops = &t->image_ops;
    return io;
}

/* --- Trials --------------------------------------------------------------- */

static void
open_disk(struct trial *t)
{
    struct rig *r = &t->rig;

    now = t;
    r->play.disk = rig_open_disk(r, open_image(t));
    data_use_store(r->play.disk->file->image,
                   store_beside_new(open_data(t), t->align,
                                    r->play.cluster_size, &t->state));
}

static int
note_place(void *opaque, const struct qcow2_extent *e)
{
    struct trial *t = opaque;

    for (uint64_t at = 0; at < e->nr_bytes; at += t->rig.play.cluster_size) {
        uint64_t c = (e->guest_off + at) / t->rig.play.cluster_size;

        if (e->has_host_off && e->depth == 0 && !e->compressed) {
            EXPECT(t->state.placed[c], "cluster %llu was released",
                   (unsigned long long)c);
            t->published[c] = true;
        }
    }
    return 0;
}

/* What has a place in the store has one in the tables. */
static void
expect_nothing_lost(struct trial *t)
{
    struct qcow2_error err;

    memset(t->published, 0, sizeof t->published);
    EXPECT_OK(qcow2_map(t->rig.play.disk, t->rig.play.model.size, 0,
                        note_place, t, &err), &err);
    EXPECT(memcmp(t->published, t->state.placed, sizeof t->published) == 0,
           "a place that no entry has was not released");
}

static void
close_disk(struct trial *t)
{
    struct qcow2_error err;

    EXPECT_OK(qcow2_close(t->rig.play.disk, &err), &err);
}

static void
start(struct trial *t, const char *recipe, uint64_t backing_bytes,
      uint32_t align, uint64_t stream)
{
    uint64_t seed = rng_seed(1);

    memset(t, 0, sizeof *t);
    expect_case("TEST_SEED=%llu: %s, blocks of %u", (unsigned long long)seed,
                recipe, align);
    rng_init(&t->rng, seed, stream);
    rig_init(&t->rig, recipe, backing_bytes);
    rig_start(&t->rig);
    t->data = mem_new(NULL, 0);
    t->align = align;
    open_disk(t);
    t->rig.play.must_be_fast = rig_version(t->rig.mem) >= 3;
}

static void
end(struct trial *t)
{
    rig_end(&t->rig);
    rig_free(&t->rig);
    mem_free(t->data);
    tmpdir_clear();
}

static void
random_op(struct trial *t, uint64_t i)
{
    struct op op = play_random(&t->rig.play, &t->rng, 1000 + i);
    struct qcow2_error err;

    expect_step("%llu: %s", (unsigned long long)i, play_text(&op));
    if (op.kind == OP_REOPEN) {
        close_disk(t);
        open_disk(t);
    } else if (rng_percent(&t->rng, 3)) {
        EXPECT_OK(qcow2_preallocate(t->rig.play.disk, op.nr_bytes, op.off,
                                    1 + rng_below(&t->rng, 3), &err), &err);
    } else {
        EXPECT_OK(play_op(&t->rig.play, &op, &err), &err);
    }
}

static void
random_requests_agree_with_a_model(void **state)
{
    static const struct {
        const char *recipe;
        uint64_t backing_bytes;
        uint32_t align;
    } images[] = {
        { "version 3; cluster 4096; size 200000", 0, 4096 },
        { "version 3; cluster 64K; size 1M; backing base.raw raw; "
          "compressed 1-3 5; zero 5", 600001, 4096 },
        { "version 2; cluster 8192; size 250000; backing base.raw raw; "
          "compressed 0-2 5", 100000, 4096 },
        { "version 3; cluster 512; size 20K; backing base.raw raw; "
          "compressed 9 3", 20480, 512 },
        { "version 2; cluster 4096; size 123456", 0, 1 },
    };
    unsigned rounds = env_number("TEST_ROUNDS", 1);

    (void)state;
    for (unsigned n = 0; n < rounds * sizeof images / sizeof images[0]; n++) {
        unsigned i = n % (sizeof images / sizeof images[0]);
        struct trial t;

        start(&t, images[i].recipe, images[i].backing_bytes, images[i].align,
              n);
        play_verify(&t.rig.play);
        for (uint64_t op = 0; op < NR_OPS; op++)
            random_op(&t, op);
        play_verify(&t.rig.play);
        expect_nothing_lost(&t);
        close_disk(&t);
        end(&t);
    }
}

static void
shrinking_releases_what_lies_beyond(void **state)
{
    struct qcow2_error err;
    struct trial t;

    (void)state;
    start(&t, "version 3; cluster 512; size 60K", 0, 512, 0);
    rig_play(&t.rig, OP_WRITE, 0, 60 << 10, 0);
    EXPECT_OK(qcow2_resize(t.rig.play.disk, 1000, true, &err), &err);
    t.rig.play.model.size = 1000;
    play_verify(&t.rig.play);
    expect_nothing_lost(&t);
    close_disk(&t);
    end(&t);
}

static void
a_data_file_that_cannot_be_flushed_fails_the_image(void **state)
{
    struct qcow2_error err;
    struct trial t;

    (void)state;
    start(&t, "version 3; cluster 4096; size 200000", 0, 4096, 0);
    rig_play(&t.rig, OP_WRITE, 0, 5000, 0);
    t.fail_flush = true;
    EXPECT(qcow2_flush(t.rig.play.disk, &err) == -1 && err.errnum == EIO,
           "flush");
    t.fail_flush = false;
    EXPECT(qcow2_pwrite(t.rig.play.disk, "x", 1, 0, 0, &err) == -1,
           "a failed image takes writes");
    EXPECT(qcow2_flush(t.rig.play.disk, &err) == -1, "flush");
    play_verify(&t.rig.play);
    EXPECT(qcow2_close(t.rig.play.disk, &err) == -1, "close");
    end(&t);
}

static void
what_is_not_counted_has_no_snapshots(void **state)
{
    struct qcow2_snapshot_create_options options = { 0 };
    struct qcow2_error err;
    struct trial t;

    (void)state;
    start(&t, "version 3; cluster 4096; size 200000", 0, 4096, 0);
    EXPECT(qcow2_snapshot_create(t.rig.play.disk, "s", &options, &err) == -1
           && err.errnum == ENOTSUP, "snapshot");
    rig_play(&t.rig, OP_WRITE, 0, 5000, 0);
    close_disk(&t);
    end(&t);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_requests_agree_with_a_model),
        cmocka_unit_test(shrinking_releases_what_lies_beyond),
        cmocka_unit_test(a_data_file_that_cannot_be_flushed_fails_the_image),
        cmocka_unit_test(what_is_not_counted_has_no_snapshots),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
