/* SPDX-License-Identifier: BSD-3-Clause */
/* test-readers: every operation on a whole disk beside everything that only
 * reads or asks: what a disk and its snapshots show, their list, the layers,
 * the size. Readers of snapshots take no lock that an operation holds, so
 * what they use must not change under them. For ThreadSanitizer above all;
 * TEST_ROUNDS makes longer runs.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "audit.h"
#include "builder.h"
#include "disk/open.h"
#include "expect.h"
#include "io-jitter.h"
#include "io-mem.h"
#include "oracle.h"
#include "rng.h"
#include "tmpdir.h"

enum { SIZE = 1 << 20, VM_STATE = 4096 };

struct trial {
    struct qcow2_disk *disk;
    unsigned char *saved;   /* what the snapshot "held" holds */
    bool raw;
    unsigned ended;         /* atomic: the operations have */
    unsigned failed;        /* atomic */
    char problem[512];      /* of the first that failed */
};

static void
complain(struct trial *t, const char *what, const char *why)
{
    if (__atomic_fetch_add(&t->failed, 1, __ATOMIC_ACQ_REL) == 0)
        snprintf(t->problem, sizeof t->problem, "%s: %.200s", what, why);
}

#define TRY(t, call, err)                                               \
    do {                                                                \
        if ((call) == -1)                                               \
            complain((t), #call, (err)->text);                          \
    } while (0)

static bool
goes_on(struct trial *t)
{
    return !__atomic_load_n(&t->ended, __ATOMIC_ACQUIRE)
           && !__atomic_load_n(&t->failed, __ATOMIC_ACQUIRE);
}

/* --- Readers: each a thread that goes on until the operations end. ------- */

static int
ignore_extent(void *opaque, const struct qcow2_extent *e)
{
    (void)opaque;
    return e->nr_bytes == 0;
}

static void
read_held(struct trial *t, struct qcow2_disk *s, unsigned char *buf)
{
    struct qcow2_error err;

    TRY(t, qcow2_pread(s, buf, SIZE, 0, &err), &err);
    if (memcmp(buf, t->saved, SIZE) != 0)
        complain(t, "held", "differs");
}

static void *
read_a_snapshot(void *opaque)
{
    struct trial *t = opaque;
    unsigned char *buf = malloc(SIZE);
    struct qcow2_disk *s = qcow2_open_snapshot(t->disk, "held", NULL);

    while (s && goes_on(t))
        read_held(t, s, buf);
    qcow2_close(s, NULL);
    free(buf);
    return NULL;
}

static void *
ask_snapshots(void *opaque)
{
    struct trial *t = opaque;
    unsigned char *buf = malloc(SIZE);
    struct qcow2_error err;

    while (goes_on(t)) {
        struct qcow2_disk *s = qcow2_open_snapshot(t->disk, "held", &err);
        struct qcow2_layer layer;

        if (!s) {
            complain(t, "open", err.text);
            break;
        }
        TRY(t, qcow2_read_vm_state(s, buf, VM_STATE, 0, &err), &err);
        TRY(t, qcow2_map(s, SIZE, 0, ignore_extent, NULL, &err), &err);
        TRY(t, qcow2_get_layer(s, 0, &layer, &err), &err);
        if (qcow2_get_size(s) != SIZE || layer.nr_snapshots == 0)
            complain(t, "snapshot", "another size");
        read_held(t, s, buf);
        qcow2_close(s, NULL);
    }
    free(buf);
    return NULL;
}

static void *
list_snapshots(void *opaque)
{
    struct trial *t = opaque;
    struct qcow2_error err;

    while (goes_on(t)) {
        struct qcow2_snapshot_list list;
        bool held = t->raw;

        TRY(t, qcow2_get_snapshots(t->disk, &list, &err), &err);
        for (size_t i = 0; i < list.nr; i++)
            held |= strcmp(list.snapshots[i].name, "held") == 0
                    && list.snapshots[i].vm_state_size == VM_STATE;
        qcow2_snapshot_list_free(&list);
        if (!held || qcow2_get_nr_snapshots(t->disk) > 2)
            complain(t, "list", "differs");
    }
    return NULL;
}

static void *
ask_the_disk(void *opaque)
{
    struct trial *t = opaque;
    struct qcow2_error err;

    while (goes_on(t)) {
        struct qcow2_layer_usage usage;
        struct qcow2_layer layer;

        for (unsigned i = 0; i < qcow2_get_nr_layers(t->disk); i++)
            TRY(t, qcow2_get_layer(t->disk, i, &layer, &err), &err);
        TRY(t, qcow2_get_layer_usage(t->disk, 0, &usage, &err), &err);
        qcow2_can_fast_zero(t->disk);
        if (qcow2_get_size(t->disk) < SIZE || qcow2_is_readonly(t->disk)
            || qcow2_get_cluster_size(t->disk) != 4096)
            complain(t, "disk", "differs");
    }
    return NULL;
}

static void *
read_the_disk(void *opaque)
{
    struct trial *t = opaque;
    unsigned char *buf = malloc(SIZE);
    struct qcow2_error err;

    while (goes_on(t)) {
        TRY(t, qcow2_pread(t->disk, buf, SIZE, 0, &err), &err);
        TRY(t, qcow2_map(t->disk, SIZE, 0, ignore_extent, NULL, &err), &err);
        TRY(t, qcow2_flush(t->disk, &err), &err);
    }
    free(buf);
    return NULL;
}

static void *
write_the_disk(void *opaque)
{
    struct trial *t = opaque;
    unsigned char buf[6000];
    struct qcow2_error err;

    pattern_fill(buf, sizeof buf, 77, 0);
    for (unsigned i = 0; goes_on(t); i++) {
        uint64_t off = (uint64_t)i * 7919 % (SIZE - sizeof buf);

        TRY(t, qcow2_pwrite(t->disk, buf, sizeof buf, off, 0, &err), &err);
        TRY(t, qcow2_zero(t->disk, 8192, off & ~UINT64_C(4095),
                          i % 2 ? QCOW2_MAY_TRIM : 0, &err), &err);
    }
    return NULL;
}

/* --- Operations: one after another, in a thread of their own. ------------ */

static long
vm_state(void *opaque, void *buf, size_t nr_bytes)
{
    unsigned *left = opaque;
    size_t n = nr_bytes < *left ? nr_bytes : *left;

    memset(buf, 3, n);
    *left -= n;
    return n;
}

static void
create_and_delete(struct trial *t)
{
    unsigned left = VM_STATE;
    struct qcow2_snapshot_create_options o = {
        .vm_state = vm_state, .opaque = &left,
    };
    struct qcow2_error err;

    TRY(t, qcow2_snapshot_create(t->disk, "passing", &o, &err), &err);
    TRY(t, qcow2_snapshot_delete(t->disk, "passing", &err), &err);
}

static void
apply(struct trial *t)
{
    struct qcow2_error err;

    TRY(t, qcow2_snapshot_apply(t->disk, "held", &err), &err);
}

static void
grow_and_shrink(struct trial *t)
{
    struct qcow2_error err;

    TRY(t, qcow2_resize(t->disk, 5 * SIZE, false, &err), &err);
    TRY(t, qcow2_resize(t->disk, SIZE, true, &err), &err);
}

static void
preallocate(struct trial *t)
{
    struct qcow2_error err;

    TRY(t, qcow2_preallocate(t->disk, SIZE, 0,
                             t->raw ? QCOW2_PREALLOC_FALLOC
                                    : QCOW2_PREALLOC_METADATA, &err), &err);
}

static void
amend(struct trial *t)
{
    static const struct qcow2_amend_options changes[] = {
        { .version = 3 }, { .lazy_refcounts = QCOW2_AMEND_ON },
        { .refcount_bits = 32 }, { .refcount_bits = 16 },
        { .lazy_refcounts = QCOW2_AMEND_OFF },
    };
    struct qcow2_error err;

    for (unsigned i = 0; i < sizeof changes / sizeof changes[0]; i++)
        TRY(t, qcow2_amend(t->disk, &changes[i], &err), &err);
}

static const struct {
    const char *name;
    void (*run)(struct trial *t);
    bool of_raw, of_version_2;
} operations[] = {
    { "create and delete", create_and_delete, false, true },
    { "apply", apply, false, true },
    { "grow and shrink", grow_and_shrink, true, false },
    { "preallocate", preallocate, true, true },
    { "amend", amend, false, true },
};
enum { NR_OPERATIONS = sizeof operations / sizeof operations[0] };

/* --- Scenes --------------------------------------------------------------- */

static void
make_layers(void)
{
    builder_make(tmpdir_path("l0"), "cluster 4096; size 1M; data 0-40 1");
    builder_make(tmpdir_path("l1"), "cluster 4096; size 1M;"
                 "backing l0 qcow2; data 30-50 2");
    builder_make(tmpdir_path("l2"), "cluster 4096; size 1M;"
                 "backing l1 qcow2; compressed 60-61 3");
}

static struct mem *
start(struct trial *t, const char *recipe)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct builder *b = builder_new();
    struct mem *m = NULL;
    struct qcow2_disk *s;
    struct qcow2_error err;

    memset(t, 0, sizeof *t);
    t->raw = !recipe;
    t->saved = calloc(1, SIZE);
    EXPECT(t->saved, "memory");
    if (recipe) {
        const unsigned char *bytes;
        size_t nr_bytes;

        builder_add(b, "%s", recipe);
        bytes = builder_bytes(b, &nr_bytes);
        m = mem_new(bytes, nr_bytes);
    } else {
        m = mem_new(NULL, SIZE);
        options.format = QCOW2_FORMAT_RAW;
    }
    builder_free(b);
    t->disk = disk_open_io(io_jitter_new(io_mem_open(m, false)),
                           tmpdir_path("image"), &options, &err);
    EXPECT(t->disk, "open: %s", err.text);
    if (recipe) {
        s = qcow2_open_snapshot(t->disk, "held", &err);
        EXPECT(s, "%s", err.text);
        EXPECT_OK(qcow2_pread(s, t->saved, SIZE, 0, &err), &err);
        qcow2_close(s, NULL);
    }
    return m;
}

static void
finish(struct trial *t, struct mem *m)
{
    const unsigned char *bytes;
    struct qcow2_error err;
    uint64_t nr_bytes;
    struct audit a;

    EXPECT_OK(qcow2_close(t->disk, &err), &err);
    bytes = mem_bytes(m, &nr_bytes);
    if (!t->raw) {
        audit_image(bytes, nr_bytes, &a);
        EXPECT(audit_is_clean(&a), "%u corruptions (%s), %u leaks",
               a.nr_corruptions, a.first, a.nr_leaks);
        mem_save(m, tmpdir_path("image"));
        oracle_expect_clean(tmpdir_path("image"));
    }
    mem_free(m);
    free(t->saved);
}

static void
run(const char *recipe, unsigned operation, unsigned rounds)
{
    static void *(*const readers[])(void *) = {
        list_snapshots, ask_the_disk, read_the_disk, write_the_disk,
        read_a_snapshot, ask_snapshots,
    };
    enum { NR = sizeof readers / sizeof readers[0], NR_OF_RAW = 4 };
    unsigned nr = recipe ? NR : NR_OF_RAW;
    pthread_t threads[NR];
    struct trial t;
    struct mem *m = start(&t, recipe);

    for (unsigned i = 0; i < nr; i++)
        EXPECT(pthread_create(&threads[i], NULL, readers[i], &t) == 0,
               "thread");
    for (unsigned i = 0; i < rounds && goes_on(&t); i++)
        operations[operation].run(&t);
    __atomic_store_n(&t.ended, 1, __ATOMIC_RELEASE);
    for (unsigned i = 0; i < nr; i++)
        pthread_join(threads[i], NULL);
    EXPECT(t.failed == 0, "%s", t.problem);
    finish(&t, m);
}

static void
readers_do_not_mind_operations(void **state)
{
    static const char *const recipes[] = {
        NULL,
        "cluster 4096; size 1M; data 0-40 1; compressed 50-52 2; zero 70-80;"
        "zero-alloc 90-95; snapshot 1 held vmstate=1; data 20-30 4",
        "version 2; cluster 4096; size 1M; data 0-40 1; compressed 50-52 2;"
        "snapshot 1 held size=1048576 vmstate=1; data 20-30 4",
        "cluster 4096; size 1M; backing l2 qcow2; data 5-9 1; zero 12-13;"
        "snapshot 1 held vmstate=1; data 7 4",
    };
    unsigned rounds = env_number("TEST_ROUNDS", 3);

    (void)state;
    tmpdir_clear();
    make_layers();
    for (unsigned i = 0; i < sizeof recipes / sizeof recipes[0]; i++)
        for (unsigned n = 0; n < NR_OPERATIONS; n++) {
            if ((!recipes[i] && !operations[n].of_raw)
                || (recipes[i] && strstr(recipes[i], "version 2")
                    && !operations[n].of_version_2))
                continue;
            expect_case("scene %u, %s", i, operations[n].name);
            run(recipes[i], n, rounds);
        }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readers_do_not_mind_operations),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
