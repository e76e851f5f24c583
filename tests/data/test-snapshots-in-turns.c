/* SPDX-License-Identifier: BSD-3-Clause */
/* test-snapshots-in-turns: random sequences of writes, snapshots created,
 * applied and deleted, and sizes changed, in which the engine and the other
 * implementation take turns on one image, against a model. TEST_ROUNDS and
 * TEST_SEED make longer and other runs.
 */
#include <stdlib.h>

#include "contents.h"
#include "expect.h"
#include "oracle.h"
#include "tmpdir.h"

enum { NR_STEPS = 24 };

struct shape {
    const char *options; /* of qemu-img convert */
    const char *flags;
    unsigned version;
    uint32_t cluster_size;
    bool backing;
};

struct trial {
    struct shape g;
    struct rng rng;
    struct contents now;
    char path[1024];
    unsigned number; /* of the step */
};

static const uint64_t SIZE = 600 << 10;

/* Half of the image is copied, the other half left to the backing file. */
static void
make_image(struct trial *t)
{
    const char *base = tmpdir_path("base"), *raw = tmpdir_path("raw");
    unsigned char *content = calloc(1, SIZE);

    if (!content)
        abort();
    pattern_fill(content, SIZE / 2, 5, 0);
    memset(content + 100000, 0, 100000);
    tmpdir_write_file(raw, content, SIZE);
    if (t->g.backing) {
        unsigned char *below = malloc(SIZE + 70000);

        if (!below)
            abort();
        pattern_fill(below, SIZE + 70000, 6, 0);
        memcpy(below, content, SIZE / 2);
        tmpdir_write_file(base, below, SIZE + 70000);
        memcpy(content, below, SIZE);
        free(below);
        EXPECT(oracle_run("qemu-img create -q -f qcow2 -o %s -b '%s' -F raw "
                          "'%s' %llu", t->g.options, base, t->path,
                          (unsigned long long)SIZE) == 0, "create");
    } else {
        EXPECT(oracle_run("qemu-img convert -q %s -O qcow2 -o %s -f raw '%s' "
                          "'%s'", t->g.flags, t->g.options, raw, t->path)
               == 0, "convert");
    }
    contents_init(&t->now, content, SIZE);
    free(content);
}

static struct qcow2_disk *
open_disk(struct trial *t)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_error err;
    struct qcow2_disk *disk = qcow2_open(t->path, &options, &err);

    EXPECT(disk, "open: %s", err.text);
    return disk;
}

/* A write, or zeroes; both implementations can say it. */
struct request {
    bool zero, may_trim;
    uint64_t off, nr_bytes;
    unsigned char byte;
};

static struct request
random_request(struct trial *t)
{
    struct request q = { .zero = rng_percent(&t->rng, 30) };
    uint64_t sectors = t->now.size / 512;

    q.may_trim = q.zero && rng_percent(&t->rng, 50);
    q.off = rng_below(&t->rng, sectors) * 512;
    q.nr_bytes = (1 + rng_below(&t->rng, 300)) * 512;
    if (rng_percent(&t->rng, 50)) {
        q.off = q.off / t->g.cluster_size * t->g.cluster_size;
        q.nr_bytes = (1 + q.nr_bytes / t->g.cluster_size)
                     * t->g.cluster_size;
    }
    if (q.nr_bytes > t->now.size - q.off)
        q.nr_bytes = t->now.size - q.off;
    q.byte = 1 + t->number % 250;
    return q;
}

static void
play_request(struct trial *t, bool ours)
{
    struct request q;
    struct qcow2_error err;

    if (t->now.size < 512)
        return;
    q = random_request(t);
    expect_step("%u: %s %s %llu+%llu", t->number, ours ? "we" : "qemu",
                q.zero ? "zero" : "write", (unsigned long long)q.off,
                (unsigned long long)q.nr_bytes);
    memset(t->now.disk + q.off, q.zero ? 0 : q.byte, q.nr_bytes);
    if (ours) {
        struct qcow2_disk *disk = open_disk(t);

        if (q.zero)
            EXPECT_OK(qcow2_zero(disk, q.nr_bytes, q.off,
                                 q.may_trim ? QCOW2_MAY_TRIM : 0, &err),
                      &err);
        else
            EXPECT_OK(qcow2_pwrite(disk, t->now.disk + q.off, q.nr_bytes,
                                   q.off, 0, &err), &err);
        EXPECT_OK(qcow2_close(disk, &err), &err);
        return;
    }
    EXPECT(oracle_run("qemu-io -f qcow2 -c 'write %s %llu %llu' '%s' "
                      ">/dev/null",
                      q.zero ? q.may_trim ? "-z -u" : "-z"
                             : (char[]){ '-', 'P', ' ', '0', 'x',
                                         "0123456789abcdef"[q.byte >> 4],
                                         "0123456789abcdef"[q.byte & 15],
                                         '\0' },
                      (unsigned long long)q.off,
                      (unsigned long long)q.nr_bytes, t->path) == 0,
           "qemu-io");
}

static int
qemu_whole(struct trial *t, const struct whole_op *op)
{
    const char *name = op->kind == WHOLE_APPLY || op->kind == WHOLE_DELETE
                       ? t->now.saved[op->i].name : "";

    switch (op->kind) {
    case WHOLE_CREATE:
        return oracle_run("qemu-img snapshot -q -c s%u '%s'", op->number,
                          t->path);
    case WHOLE_APPLY:
        return oracle_run("qemu-img snapshot -q -a %s '%s'", name, t->path);
    case WHOLE_DELETE:
        return oracle_run("qemu-img snapshot -q -d %s '%s'", name, t->path);
    case WHOLE_RESIZE:
        return oracle_run("qemu-img resize -q -f qcow2 --shrink '%s' %llu",
                          t->path, (unsigned long long)op->size);
    case WHOLE_PREALLOCATE:
    case WHOLE_AMEND:
        break;
    }
    return 0;
}

/* It cannot empty a disk, nor hide a backing file in version 2. */
static bool
qemu_can(const struct trial *t, const struct whole_op *op)
{
    return op->kind != WHOLE_RESIZE
           || (op->size > 0 && !(t->g.version == 2 && t->g.backing));
}

static void
play_whole(struct trial *t, bool ours)
{
    /* QEMU shows what it cut off inside a cluster when it grows again. */
    struct whole_op op = whole_random(&t->now, &t->rng, t->g.cluster_size,
                                      2 * SIZE,
                                      ours ? 512 : t->g.cluster_size,
                                      t->number);

    ours = ours || !qemu_can(t, &op);
    expect_step("%u: %s %s", t->number, ours ? "we" : "qemu",
                whole_text(&op));
    if (op.kind == WHOLE_RESIZE && t->g.version == 2 && t->now.nr > 0)
        return;
    if (ours) {
        struct qcow2_disk *disk = open_disk(t);
        struct qcow2_error err;

        EXPECT_OK(whole_run(disk, &t->now, &op, &err), &err);
        EXPECT_OK(qcow2_close(disk, &err), &err);
    } else {
        op.vm_state_size = 0;
        EXPECT(qemu_whole(t, &op) == 0, "qemu-img");
    }
    whole_model(&t->now, &op);
}

static void
verify(struct trial *t)
{
    struct qcow2_disk *disk = open_disk(t);
    struct qcow2_error err;

    contents_expect(disk, &t->now);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    oracle_expect_clean(t->path);
    if (t->number % 4 == 0)
        oracle_expect_content(t->path, t->now.disk, t->now.size);
}

static void
try_geometry(const struct shape *g, uint64_t stream)
{
    struct trial t = { .g = *g };

    expect_case("TEST_SEED=%llu, stream %llu: %s %s%s",
                (unsigned long long)rng_seed(1), (unsigned long long)stream,
                g->options, g->flags, g->backing ? ", backing file" : "");
    rng_init(&t.rng, rng_seed(1), stream);
    snprintf(t.path, sizeof t.path, "%s", tmpdir_path("image"));
    make_image(&t);
    for (t.number = 1; t.number <= NR_STEPS; t.number++) {
        bool ours = rng_percent(&t.rng, 50);

        if (rng_percent(&t.rng, 50))
            play_request(&t, ours);
        else
            play_whole(&t, ours);
        verify(&t);
    }
    contents_free(&t.now);
    tmpdir_clear();
}

static void
both_implementations_take_turns(void **state)
{
    static const struct shape geometries[] = {
        { "compat=1.1,cluster_size=64K", "-c", 3, 65536, false },
        { "compat=1.1,cluster_size=4K", "", 3, 4096, true },
        { "compat=0.10,cluster_size=4K", "-c", 2, 4096, false },
        { "compat=1.1,cluster_size=512", "", 3, 512, false },
        { "compat=0.10,cluster_size=64K", "", 2, 65536, true },
        { "compat=1.1,cluster_size=512,refcount_bits=64", "", 3, 512, true },
        { "compat=1.1,cluster_size=16K,lazy_refcounts=on", "-c", 3, 16384,
          false },
    };
    unsigned rounds = env_number("TEST_ROUNDS", 1);

    (void)state;
    oracle_or_skip();
    for (unsigned n = 0; n < rounds; n++)
        for (unsigned i = 0; i < sizeof geometries / sizeof geometries[0];
             i++)
            try_geometry(&geometries[i], n * 100 + i);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_implementations_take_turns),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
