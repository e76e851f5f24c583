/* SPDX-License-Identifier: BSD-3-Clause */
/* test-convert: random chains and their snapshots copied to targets of every
 * kind read the same, with holes where they had holes; what fails leaves no
 * target behind. TEST_ROUNDS and TEST_SEED make longer and other runs.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "audit.h"
#include "expect.h"
#include "layers.h"
#include "oracle.h"
#include "tmpdir.h"

static void
convert(struct qcow2_disk *const *sources, size_t nr, const char *target,
        const struct qcow2_convert_options *options)
{
    struct qcow2_error err;
    struct qcow2_job *job = qcow2_convert(sources, nr, tmpdir_path(target),
                                          options, &err);

    EXPECT(job, "%s", err.text);
    EXPECT_OK(qcow2_job_run(job, NULL, NULL, &err), &err);
    qcow2_job_free(job);
}

static void
convert_name(const char *name, enum qcow2_format format, const char *target,
             const struct qcow2_convert_options *options)
{
    struct qcow2_disk *disk = layers_open(name, format);

    convert(&disk, 1, target, options);
    qcow2_close(disk, NULL);
}

static uint64_t
allocated(const char *name)
{
    struct stat st;

    EXPECT(stat(tmpdir_path(name), &st) == 0, "%s", name);
    return (uint64_t)st.st_blocks * 512;
}

static bool
exists(const char *name)
{
    return access(tmpdir_path(name), F_OK) == 0;
}

static void
random_options(struct rng *rng, struct qcow2_convert_options *o)
{
    static const enum qcow2_format formats[] = {
        QCOW2_FORMAT_AUTO, QCOW2_FORMAT_QCOW2, QCOW2_FORMAT_RAW,
    };

    memset(o, 0, sizeof *o);
    o->format = formats[rng_below(rng, 3)];
    o->create.version = rng_percent(rng, 30) ? 2 : 3;
    o->create.cluster_size = 512U << rng_below(rng, 9);
    if (rng_percent(rng, 20))
        o->create.cluster_size = 0;
    if (o->create.version == 3)
        o->create.refcount_bits = 1U << rng_below(rng, 7);
    o->allocate_all = rng_percent(rng, 15);
    o->sparse_bytes = rng_percent(rng, 50) ? 0 : 512U << rng_below(rng, 6);
    o->nr_threads = rng_below(rng, 5);
    o->out_of_order = rng_percent(rng, 30);
    o->prealloc = rng_percent(rng, 80) ? QCOW2_PREALLOC_OFF
                                       : QCOW2_PREALLOC_FULL;
    if (o->format != QCOW2_FORMAT_RAW && rng_percent(rng, 40)) {
        o->compress = true;
        o->create.zstd = o->create.version == 3
                         && qcow2_has_feature("zstd") && rng_percent(rng, 50);
    }
}

static void
targets_of_every_kind_read_the_same(void **state)
{
    uint64_t seed = rng_seed(1);
    unsigned rounds = env_number("TEST_ROUNDS", 60);

    (void)state;
    for (unsigned i = 0; i < rounds; i++) {
        struct qcow2_convert_options o;
        struct test_layer *top;
        struct layers chain;
        struct rng rng;

        tmpdir_clear();
        rng_init(&rng, seed, i);
        layers_make(&chain, &rng, 1 + rng_below(&rng, MAX_TEST_LAYERS), true,
                    "l");
        top = layers_top(&chain);
        random_options(&rng, &o);
        expect_case("seed %llu round %u: %s to format %d v%u cluster %u%s%s "
                    "threads %u", (unsigned long long)seed, i,
                    layers_text(&chain), o.format, o.create.version,
                    o.create.cluster_size, o.compress ? " compressed" : "",
                    o.allocate_all ? " all" : "", o.nr_threads);
        convert_name(top->name, QCOW2_FORMAT_QCOW2, "target", &o);
        layers_expect("target", o.format == QCOW2_FORMAT_RAW
                                    ? QCOW2_FORMAT_RAW : QCOW2_FORMAT_QCOW2,
                      top->shows, top->size);
        layers_free(&chain);
    }
}

static void
snapshots_and_raw_files_are_sources(void **state)
{
    struct qcow2_convert_options o = { .format = QCOW2_FORMAT_RAW };
    struct qcow2_error err;
    struct qcow2_disk *disk, *snapshot;
    unsigned char *want;

    (void)state;
    tmpdir_clear();
    expect_case("snapshot");
    builder_make(tmpdir_path("image"), "size 1M; data 0-3 1; data 9 2;"
                 "snapshot 1 one; data 2-5 3; zero 9");
    disk = layers_open("image", QCOW2_FORMAT_QCOW2);
    snapshot = qcow2_open_snapshot(disk, "one", &err);
    EXPECT(snapshot, "%s", err.text);
    want = layers_read(snapshot);
    convert(&snapshot, 1, "raw", &o);
    layers_expect("raw", QCOW2_FORMAT_RAW, want, 1 << 20);
    EXPECT(allocated("raw") <= 5 * 65536, "%llu bytes",
           (unsigned long long)allocated("raw"));

    o.format = QCOW2_FORMAT_QCOW2;
    convert_name("raw", QCOW2_FORMAT_RAW, "again", &o);
    layers_expect("again", QCOW2_FORMAT_QCOW2, want, 1 << 20);
    free(want);
    qcow2_close(snapshot, NULL);
    qcow2_close(disk, NULL);
}

static void
disks_are_joined_and_cut(void **state)
{
    struct qcow2_convert_options o = { .format = QCOW2_FORMAT_RAW };
    struct qcow2_disk *disks[3];
    unsigned char *want = calloc(1, 1 << 20);

    (void)state;
    tmpdir_clear();
    expect_case("joined");
    pattern_fill(want, 100000, 1, 0);
    tmpdir_write_file(tmpdir_path("a"), want, 100000);
    pattern_fill(want + 100352, 70000, 2, 0);
    tmpdir_write_file(tmpdir_path("b"), want + 100352, 70000);
    builder_make(tmpdir_path("c"), "cluster 4K; size 100K; data 3-5 7");
    disks[0] = layers_open("a", QCOW2_FORMAT_RAW);
    disks[1] = layers_open("b", QCOW2_FORMAT_RAW);
    disks[2] = layers_open("c", QCOW2_FORMAT_QCOW2);
    for (unsigned i = 0; i < 3; i++) {
        unsigned char *c = layers_read(disks[2]);

        memcpy(want + 170496, c, 102400);
        free(c);
        o.format = i ? QCOW2_FORMAT_QCOW2 : QCOW2_FORMAT_RAW;
        o.compress = i == 2;
        o.create.overwrite = true;
        convert(disks, 3, "target", &o);
        layers_expect("target", o.format, want, 170496 + 102400);
    }
    o = (struct qcow2_convert_options){
        .format = QCOW2_FORMAT_RAW, .skip_bytes = 99999, .has_nr_bytes = true,
        .nr_bytes = 80001,
    };
    convert(disks, 3, "part", &o);
    layers_expect("part", QCOW2_FORMAT_RAW, want + 99999, 80001);
    for (unsigned i = 0; i < 3; i++)
        qcow2_close(disks[i], NULL);
    free(want);
}

/* What was in the target does not show. */
static void
an_existing_target_is_written_over(void **state)
{
    struct qcow2_convert_options o = { .no_create = true };
    unsigned char *want;
    struct qcow2_disk *disk;

    (void)state;
    tmpdir_clear();
    expect_case("no_create");
    builder_make(tmpdir_path("source"), "cluster 4K; size 1M; data 3-9 1;"
                 "zero 10-12; data 200 2");
    disk = layers_open("source", QCOW2_FORMAT_QCOW2);
    want = layers_read(disk);
    qcow2_close(disk, NULL);
    for (unsigned i = 0; i < 4; i++) {
        o.compress = i == 3;
        o.format = i == 0 ? QCOW2_FORMAT_RAW : QCOW2_FORMAT_QCOW2;
        builder_make(tmpdir_path("base"), "size 1M; data 0-15 6");
        builder_make(tmpdir_path("target"), i == 1
                     ? "version 2; cluster 8K; size 1M; backing base qcow2;"
                       "data 0-99 4"
                     : "cluster 8K; size 1M; backing base qcow2; data 0-50 4;"
                       "snapshot 1 x; compressed 4-40 9");
        if (i == 0) {
            unsigned char *junk = malloc(1 << 20);

            memset(junk, 7, 1 << 20);
            tmpdir_write_file(tmpdir_path("target"), junk, 1 << 20);
            free(junk);
        }
        convert_name("source", QCOW2_FORMAT_QCOW2, "target", &o);
        layers_expect("target", o.format, want, 1 << 20);
    }
    free(want);
}

/* The source ends where it ends: in a cluster of which the target has more,
 * too. */
static void
what_the_target_has_behind_the_source_stays(void **state)
{
    static const uint64_t sizes[] = {
        512, 4096, 65536 - 512, 65536, 65536 + 512, 3 * 65536 + 1000,
    };
    struct qcow2_convert_options o = { .no_create = true };
    unsigned char *source = malloc(1 << 20), *before, *want;

    (void)state;
    EXPECT(source, "memory");
    pattern_fill(source, 1 << 20, 8, 0);
    want = malloc(1 << 20);
    for (unsigned i = 0; i < 4 * sizeof sizes / sizeof sizes[0]; i++) {
        uint64_t size = sizes[i / 4], whole;
        struct qcow2_disk *disk;

        tmpdir_clear();
        o.compress = i % 4 < 2;
        expect_case("%llu bytes, %s%s", (unsigned long long)size,
                    i % 2 ? "zeroes at the end" : "data",
                    o.compress ? ", compressed" : "");
        o.format = i % 4 == 3 ? QCOW2_FORMAT_RAW : QCOW2_FORMAT_QCOW2;
        builder_make(tmpdir_path("base"), "size 1M; data 0-15 6");
        builder_make(tmpdir_path("target"), "size 1M; backing base qcow2;"
                     "compressed 0 4; data 1 5; snapshot 1 x; data 3 7");
        if (o.format == QCOW2_FORMAT_RAW)
            tmpdir_write_file(tmpdir_path("target"), source + 7, 1000000);
        disk = layers_open("target", o.format);
        before = layers_read(disk);
        whole = qcow2_get_size(disk);
        qcow2_close(disk, NULL);
        memcpy(want, before, whole);
        memcpy(want, source, size);
        if (i % 2)
            memset(want, 0, size);
        tmpdir_write_file(tmpdir_path("source"), want, size);
        convert_name("source", QCOW2_FORMAT_RAW, "target", &o);
        layers_expect("target", o.format, want, whole);
        free(before);
    }
    free(want);
    free(source);
}

/* Only what the top layer has is copied onto the same backing file. */
static void
an_overlay_is_copied_as_an_overlay(void **state)
{
    struct qcow2_convert_options o = {
        .create = {
            .backing = "base", .backing_format = QCOW2_FORMAT_QCOW2,
            .cluster_size = 4096,
        },
    };
    struct audit a;
    unsigned char *bytes, *want;
    size_t nr_bytes;
    struct qcow2_disk *disk;

    (void)state;
    tmpdir_clear();
    expect_case("overlay");
    builder_make(tmpdir_path("base"), "size 1M; data 0-15 1");
    builder_make(tmpdir_path("top"), "cluster 4K; size 1M; backing base qcow2;"
                 "data 5-7 2; zero 20-21; compressed 30 3");
    disk = layers_open("top", QCOW2_FORMAT_QCOW2);
    want = layers_read(disk);
    qcow2_close(disk, NULL);
    for (unsigned i = 0; i < 2; i++) {
        o.compress = i == 1;
        o.create.overwrite = true;
        convert_name("top", QCOW2_FORMAT_QCOW2, "copy", &o);
        layers_expect("copy", QCOW2_FORMAT_QCOW2, want, 1 << 20);
        bytes = tmpdir_read_file(tmpdir_path("copy"), &nr_bytes);
        audit_image(bytes, nr_bytes, &a);
        EXPECT(i == 1 || a.nr_data == 4, "%llu clusters",
               (unsigned long long)a.nr_data);
        EXPECT(nr_bytes < 100000, "%zu bytes", nr_bytes);
        free(bytes);
    }
    free(want);
}

static int
cancel(void *opaque, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    return ++*(int *)opaque > 2;
}

static void
a_target_that_is_not_complete_is_removed(void **state)
{
    struct qcow2_convert_options o = { .format = QCOW2_FORMAT_RAW };
    struct qcow2_error err;
    struct qcow2_disk *disk;
    struct qcow2_job *job;
    int calls = 0;
    pid_t pid;
    int status;

    (void)state;
    tmpdir_clear();
    expect_case("cancel");
    builder_make(tmpdir_path("source"), "size 64M; data 0-1000 1");
    disk = layers_open("source", QCOW2_FORMAT_QCOW2);
    o.nr_threads = 1;
    job = qcow2_convert(&disk, 1, tmpdir_path("target"), &o, &err);
    EXPECT(job, "%s", err.text);
    EXPECT(exists("target"), "not created");
    EXPECT(qcow2_job_run(job, cancel, &calls, &err) == -1
           && err.errnum == ECANCELED, "%s", err.text);
    qcow2_job_free(job);
    EXPECT(!exists("target"), "not removed");

    expect_case("file size limit");
    pid = fork();
    if (pid == 0) {
        struct rlimit limit = { 1 << 20, 1 << 20 };

        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &limit);
        o.format = QCOW2_FORMAT_QCOW2;
        job = qcow2_convert(&disk, 1, tmpdir_path("target"), &o, &err);
        status = !job ? 1 : qcow2_job_run(job, NULL, NULL, &err) != -1 ? 2
                 : err.errnum != EFBIG ? 3 : 0;
        qcow2_job_free(job);
        _exit(status);
    }
    EXPECT(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0,
           "status %d", status);
    EXPECT(!exists("target"), "not removed");
    qcow2_close(disk, NULL);
}

static void
expect_refused(const char *target, struct qcow2_convert_options *o,
               int errnum, const char *text)
{
    struct qcow2_disk *disk = layers_open("source", QCOW2_FORMAT_QCOW2);
    struct qcow2_error err = { .errnum = 0 };
    struct qcow2_job *job = qcow2_convert(&disk, 1, tmpdir_path(target), o,
                                          &err);

    EXPECT(!job, "convert to %s began", target);
    EXPECT(err.errnum == errnum && strstr(err.text, text), "errno %d: %s",
           err.errnum, err.text);
    qcow2_close(disk, NULL);
}

static void
what_cannot_be_is_refused_in_words(void **state)
{
    struct qcow2_convert_options o = { .format = QCOW2_FORMAT_QCOW2 };

    (void)state;
    tmpdir_clear();
    expect_case("refusals");
    builder_make(tmpdir_path("base"), "size 1M; data 2 1");
    builder_make(tmpdir_path("source"), "size 1M; backing base qcow2;"
                 "data 0-3 1");
    builder_make(tmpdir_path("small"), "size 512K");
    expect_refused("source", &o, EINVAL, "read from");
    expect_refused("small", &o, EEXIST, "small");
    o.create.overwrite = true;
    expect_refused("base", &o, EINVAL, "read from");
    expect_refused("no-such-dir/x", &o, ENOENT, "no-such-dir");
    o.no_create = true;
    expect_refused("missing", &o, ENOENT, "missing");
    expect_refused("small", &o, ENOSPC, "524288");
    tmpdir_write_file(tmpdir_path("raw"), "x", 1);
    o = (struct qcow2_convert_options){
        .format = QCOW2_FORMAT_RAW, .compress = true,
        .create.overwrite = true,
    };
    expect_refused("raw", &o, EINVAL, "compressed");
    o = (struct qcow2_convert_options){
        .format = QCOW2_FORMAT_RAW, .create.backing = "base",
    };
    expect_refused("new", &o, EINVAL, "no backing file");
    EXPECT(exists("base") && exists("small"), "something was removed");
}

static void
holes_and_zeroes_are_kept(void **state)
{
    struct qcow2_convert_options o = { .format = QCOW2_FORMAT_RAW };
    struct audit a;
    unsigned char *bytes;
    size_t nr_bytes;

    (void)state;
    tmpdir_clear();
    expect_case("holes");
    builder_make(tmpdir_path("source"), "size 1G; data 1 1; zero 2-9;"
                 "data 16000 2");
    convert_name("source", QCOW2_FORMAT_QCOW2, "raw", &o);
    EXPECT(allocated("raw") <= 4 * 65536, "%llu bytes",
           (unsigned long long)allocated("raw"));
    o.format = QCOW2_FORMAT_QCOW2;
    convert_name("raw", QCOW2_FORMAT_RAW, "again", &o);
    bytes = tmpdir_read_file(tmpdir_path("again"), &nr_bytes);
    audit_image(bytes, nr_bytes, &a);
    free(bytes);
    EXPECT(a.nr_data == 2, "%llu clusters", (unsigned long long)a.nr_data);

    builder_make(tmpdir_path("source"), "size 4M; data 1 1; zero 2-9");
    o.create.overwrite = true;
    o.format = QCOW2_FORMAT_RAW;
    o.allocate_all = true;
    convert_name("source", QCOW2_FORMAT_QCOW2, "raw", &o);
    EXPECT(allocated("raw") >= 4 << 20, "%llu bytes",
           (unsigned long long)allocated("raw"));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(targets_of_every_kind_read_the_same),
        cmocka_unit_test(snapshots_and_raw_files_are_sources),
        cmocka_unit_test(disks_are_joined_and_cut),
        cmocka_unit_test(an_existing_target_is_written_over),
        cmocka_unit_test(what_the_target_has_behind_the_source_stays),
        cmocka_unit_test(an_overlay_is_copied_as_an_overlay),
        cmocka_unit_test(holes_and_zeroes_are_kept),
        cmocka_unit_test(a_target_that_is_not_complete_is_removed),
        cmocka_unit_test(what_cannot_be_is_refused_in_words),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
