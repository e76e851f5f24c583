/* SPDX-License-Identifier: BSD-3-Clause */
/* test-store: an image works the same on a store of guest data that keeps them
 * in another way than as they are (stores.h): random requests, snapshots,
 * resizing and preallocation against a model, and writes side by side to one
 * block. TEST_ROUNDS and TEST_SEED make longer and other runs.
 */
#include <pthread.h>
#include <stdlib.h>

#include "audit.h"
#include "disk/open-disk.h"
#include "expect.h"
#include "meta/data.h"
#include "rig.h"
#include "stores.h"
#include "tmpdir.h"

enum { NR_SNAPSHOTS = 3, NR_OPS = 250 };

struct trial {
    struct rig rig;
    uint32_t align;
    struct rng rng;
    unsigned nr_snapshots, next_name;
    struct {
        char name[16];
        unsigned char *content;
        uint64_t size;
    } snapshots[NR_SNAPSHOTS];
};

static void
open_disk(struct trial *t)
{
    struct rig *r = &t->rig;
    struct image *img;

    r->play.disk = rig_open_disk(r, io_mem_open(r->mem, false));
    img = r->play.disk->file->image;
    data_use_store(img, store_scrambled_new(img->data, t->align));
}

static void
close_disk(struct trial *t)
{
    struct qcow2_error err;
    const unsigned char *bytes;
    uint64_t nr_bytes;
    struct audit a;

    EXPECT_OK(qcow2_close(t->rig.play.disk, &err), &err);
    bytes = mem_bytes(t->rig.mem, &nr_bytes);
    audit_image(bytes, nr_bytes, &a);
    EXPECT(audit_is_clean(&a), "closed image: %u corruptions (%s), %u "
           "without COPIED, %u leaks%s", a.nr_corruptions, a.first,
           a.nr_uncopied, a.nr_leaks, a.dirty ? ", dirty" : "");
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
    t->align = align;
    open_disk(t);
    t->rig.play.must_be_fast = rig_version(t->rig.mem) >= 3;
}

static void
end(struct trial *t)
{
    play_verify(&t->rig.play);
    close_disk(t);
    while (t->nr_snapshots > 0)
        free(t->snapshots[--t->nr_snapshots].content);
    rig_end(&t->rig);
    rig_free(&t->rig);
    tmpdir_clear();
}

/* --- Snapshots ------------------------------------------------------------ */

static void
verify_snapshots(struct trial *t)
{
    struct qcow2_error err;

    for (unsigned i = 0; i < t->nr_snapshots; i++) {
        uint64_t size = t->snapshots[i].size;
        unsigned char *got = malloc(size);
        struct qcow2_disk *s = qcow2_open_snapshot(t->rig.play.disk,
                                                   t->snapshots[i].name,
                                                   &err);

        EXPECT(s && got, "snapshot: %s", err.text);
        EXPECT_OK(qcow2_pread(s, got, size, 0, &err), &err);
        expect_same("snapshot", got, t->snapshots[i].content, size, 0);
        EXPECT_OK(qcow2_close(s, &err), &err);
        free(got);
    }
}

static void
create_snapshot(struct trial *t)
{
    struct qcow2_snapshot_create_options options = { 0 };
    struct model *m = &t->rig.play.model;
    unsigned i = t->nr_snapshots++;
    struct qcow2_error err;

    snprintf(t->snapshots[i].name, sizeof t->snapshots[i].name, "s%u",
             t->next_name++);
    t->snapshots[i].size = m->size;
    t->snapshots[i].content = malloc(m->size);
    EXPECT(t->snapshots[i].content, "memory");
    memcpy(t->snapshots[i].content, m->disk, m->size);
    EXPECT_OK(qcow2_snapshot_create(t->rig.play.disk, t->snapshots[i].name,
                                    &options, &err), &err);
}

static void
snapshot_op(struct trial *t)
{
    struct qcow2_disk *disk = t->rig.play.disk;
    struct model *m = &t->rig.play.model;
    unsigned i = rng_below(&t->rng, NR_SNAPSHOTS);
    struct qcow2_error err;

    expect_step("snapshot");
    if (i >= t->nr_snapshots) {
        create_snapshot(t);
    } else if (rng_percent(&t->rng, 50)) {
        EXPECT_OK(qcow2_snapshot_apply(disk, t->snapshots[i].name, &err),
                  &err);
        memcpy(m->disk, t->snapshots[i].content, m->size);
    } else {
        EXPECT_OK(qcow2_snapshot_delete(disk, t->snapshots[i].name, &err),
                  &err);
        free(t->snapshots[i].content);
        t->snapshots[i] = t->snapshots[--t->nr_snapshots];
    }
    verify_snapshots(t);
}

/* --- Random requests ------------------------------------------------------ */

static void
preallocate(struct trial *t)
{
    uint64_t size = t->rig.play.model.size;
    uint64_t off = rng_below(&t->rng, size);
    uint64_t n = rng_below(&t->rng, size - off);
    enum qcow2_preallocation mode = 1 + rng_below(&t->rng, 3);
    struct qcow2_error err;

    expect_step("preallocate %llu+%llu", (unsigned long long)off,
                (unsigned long long)n);
    EXPECT_OK(qcow2_preallocate(t->rig.play.disk, n, off, mode, &err), &err);
}

static void
random_op(struct trial *t, uint64_t i)
{
    struct op op = play_random(&t->rig.play, &t->rng, 1000 + i);
    struct qcow2_error err;
    unsigned dice = rng_below(&t->rng, 100);

    if (dice < 6) {
        snapshot_op(t);
        return;
    }
    if (dice < 8) {
        preallocate(t);
        return;
    }
    expect_step("%llu: %s", (unsigned long long)i, play_text(&op));
    if (op.kind == OP_REOPEN) {
        close_disk(t);
        open_disk(t);
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
          "compressed 1-3 5; zero 5; zero-alloc 6-8", 600001, 4096 },
        { "version 2; cluster 8192; size 250000; backing base.raw raw; "
          "compressed 0-2 5", 100000, 4096 },
        { "version 2; cluster 4096; size 200704", 0, 512 },
        { "version 3; cluster 512; size 20K; backing base.raw raw; "
          "zero-alloc 2-4; compressed 9 3", 20480, 512 },
        { "version 3; cluster 4096; size 123456; zero-alloc 0-9", 0, 1 },
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
        verify_snapshots(&t);
        end(&t);
    }
}

/* --- By themselves -------------------------------------------------------- */

static void
what_resizing_hides_stays_hidden(void **state)
{
    struct trial t;
    struct rig *r = &t.rig;
    unsigned char buf[100000], zeroes[100000] = { 0 };
    struct qcow2_error err;

    (void)state;
    start(&t, "version 3; cluster 8192; size 100000", 0, 4096, 0);
    rig_play(r, OP_WRITE, 0, 100000, 0);
    EXPECT_OK(qcow2_resize(r->play.disk, 30001, true, &err), &err);
    EXPECT_OK(qcow2_resize(r->play.disk, 100000, false, &err), &err);
    memset(r->play.model.disk + 30001, 0, 100000 - 30001);
    EXPECT_OK(qcow2_pread(r->play.disk, buf, 100000 - 30001, 30001, &err),
              &err);
    expect_same("grown", buf, zeroes, 100000 - 30001, 30001);
    end(&t);
}

static long
read_vm_state(void *opaque, void *buf, size_t nr_bytes)
{
    uint64_t *at = opaque;
    size_t n = 300000 - *at < nr_bytes ? 300000 - *at : nr_bytes;

    pattern_fill(buf, n, 99, *at);
    *at += n;
    return n;
}

static void
vm_states_are_in_the_store(void **state)
{
    static unsigned char want[300000], got[300000];
    struct qcow2_snapshot_create_options options = { 0 };
    struct qcow2_disk *s;
    struct qcow2_error err;
    uint64_t at = 0;
    struct trial t;

    (void)state;
    start(&t, "version 3; cluster 8192; size 100000", 0, 4096, 0);
    options.vm_state = read_vm_state;
    options.opaque = &at;
    EXPECT_OK(qcow2_snapshot_create(t.rig.play.disk, "s", &options, &err),
              &err);
    s = qcow2_open_snapshot(t.rig.play.disk, "s", &err);
    EXPECT(s, "%s", err.text);
    pattern_fill(want, sizeof want, 99, 0);
    EXPECT_OK(qcow2_read_vm_state(s, got, sizeof got, 0, &err), &err);
    expect_same("VM state", got, want, sizeof want, 0);
    EXPECT_OK(qcow2_close(s, &err), &err);
    end(&t);
}

static bool
contains(struct mem *m, const void *text, size_t n)
{
    uint64_t nr_bytes;
    const unsigned char *bytes = mem_bytes(m, &nr_bytes);

    return memmem(bytes, nr_bytes, text, n) != NULL;
}

static void
no_data_bypass_the_store(void **state)
{
    unsigned char text[64];
    struct trial t;

    (void)state;
    start(&t, "version 3; cluster 8192; size 100000", 0, 4096, 0);
    memset(text, 'x', sizeof text);
    for (uint64_t off = 0; off < 60000; off += 7001) {
        struct qcow2_error err;

        model_write(&t.rig.play.model, text, sizeof text, off, 0);
        EXPECT_OK(qcow2_pwrite(t.rig.play.disk, text, sizeof text, off, 0,
                               &err), &err);
    }
    EXPECT(!contains(t.rig.mem, text, 16), "data as they are in the file");
    end(&t);
}

/* --- Side by side --------------------------------------------------------- */

enum { NR_THREADS = 4, PART = 100, NR_ROUNDS = 300 };

struct writer {
    struct qcow2_disk *disk;
    unsigned number, nr_failed;
};

/* Every part of the first blocks whose number is ours. */
static void *
write_parts(void *opaque)
{
    struct writer *w = opaque;
    unsigned char buf[PART];

    for (unsigned i = 0; i < NR_ROUNDS; i++) {
        uint64_t part = i % 20 * NR_THREADS + w->number;

        memset(buf, 1 + i % 200, sizeof buf);
        w->nr_failed += qcow2_pwrite(w->disk, buf, PART, part * PART, 0,
                                     NULL) == -1;
    }
    return NULL;
}

static void
parts_of_a_block_are_written_side_by_side(void **state)
{
    struct writer writers[NR_THREADS];
    pthread_t threads[NR_THREADS];
    struct trial t;

    (void)state;
    start(&t, "version 3; cluster 8192; size 100000", 0, 4096, 0);
    rig_play(&t.rig, OP_WRITE, 0, 20000, 0);
    for (unsigned i = 0; i < NR_THREADS; i++) {
        writers[i] = (struct writer){ t.rig.play.disk, i, 0 };
        EXPECT(pthread_create(&threads[i], NULL, write_parts, &writers[i])
               == 0, "thread");
    }
    for (unsigned i = 0; i < NR_THREADS; i++) {
        pthread_join(threads[i], NULL);
        EXPECT(writers[i].nr_failed == 0, "writes failed");
    }
    for (unsigned i = NR_ROUNDS - 20; i < NR_ROUNDS; i++)
        memset(t.rig.play.model.disk + i % 20 * NR_THREADS * PART,
               1 + i % 200, NR_THREADS * PART);
    end(&t);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_requests_agree_with_a_model),
        cmocka_unit_test(what_resizing_hides_stays_hidden),
        cmocka_unit_test(vm_states_are_in_the_store),
        cmocka_unit_test(no_data_bypass_the_store),
        cmocka_unit_test(parts_of_a_block_are_written_side_by_side),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
