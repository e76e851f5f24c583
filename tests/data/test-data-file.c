/* SPDX-License-Identifier: BSD-3-Clause */
/* test-data-file: images with an external data file: random requests against a
 * model, a raw data file that is the disk, its length when the size changes,
 * and which files are refused. TEST_ROUNDS and TEST_SEED make longer and other
 * runs.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk/open.h"
#include "expect.h"
#include "format/format.h"
#include "meta/data.h"
#include "meta/image.h"
#include "rig.h"
#include "storage/io-align.h"
#include "storage/io-open.h"
#include "tmpdir.h"

enum { NR_OPS = 250, BLOCK = 4096 };

static bool
matches_any(const struct policy_file *file)
{
    (void)file;
    return true;
}

static struct io *
open_in_blocks(const struct policy_file *file, const struct io_open_options *o,
               struct qcow2_error *err)
{
    struct io_open_options plain = *o;
    struct io *io;

    plain.driver = NULL;
    io = io_open(file, &plain, err);
    return io ? io_align_new(io, BLOCK, err) : NULL;
}

/* As direct I/O is on disks of such sectors. */
static const struct io_driver in_blocks = { .matches = matches_any,
                                            .open = open_in_blocks };

struct trial {
    struct rig rig;
    struct rng rng;
    bool is_raw, is_extended;
};

static void
expect_raw_file(struct trial *t)
{
    size_t nr_bytes;
    unsigned char *bytes;

    if (!t->is_raw)
        return;
    bytes = tmpdir_read_file(tmpdir_path("data.raw"), &nr_bytes);
    EXPECT(nr_bytes == t->rig.play.model.size, "the data file has %zu bytes",
           nr_bytes);
    expect_same("data file", bytes, t->rig.play.model.disk, nr_bytes, 0);
    free(bytes);
}

/* Where there are subclusters, they are trimmed. */
static void
open_disk(struct trial *t)
{
    struct rig *r = &t->rig;

    r->play.disk = rig_open_disk(r, io_mem_open(r->mem, false));
    if (t->is_extended)
        r->play.cluster_size /= 32;
}

static void
random_op(struct trial *t, uint64_t i)
{
    struct op op = play_random(&t->rig.play, &t->rng, 1000 + i);
    struct qcow2_error err;

    expect_step("%llu: %s", (unsigned long long)i, play_text(&op));
    if (op.kind == OP_REOPEN) {
        EXPECT_OK(qcow2_close(t->rig.play.disk, &err), &err);
        open_disk(t);
    } else if (rng_percent(&t->rng, 3)) {
        EXPECT_OK(qcow2_preallocate(t->rig.play.disk, op.nr_bytes, op.off,
                                    1 + rng_below(&t->rng, 3), &err), &err);
    } else {
        EXPECT_OK(play_op(&t->rig.play, &op, &err), &err);
    }
    if (op.kind == OP_FLUSH)
        expect_raw_file(t);
}

static void
start(struct trial *t, const char *recipe, uint64_t backing_bytes,
      uint64_t stream, const struct io_driver *driver)
{
    uint64_t seed = rng_seed(1);

    memset(t, 0, sizeof *t);
    expect_case("TEST_SEED=%llu: %s", (unsigned long long)seed, recipe);
    rng_init(&t->rng, seed, stream);
    t->is_raw = strstr(recipe, "data.raw raw") != NULL;
    rig_init(&t->rig, recipe, backing_bytes);
    t->is_extended = strstr(recipe, "extended-l2") != NULL;
    t->rig.options.driver = driver;
    rig_start(&t->rig);
    open_disk(t);
    t->rig.play.may_keep_trimmed = t->is_raw;
}

static void
finish(struct trial *t)
{
    expect_raw_file(t);
    rig_close(&t->rig);
    rig_free(&t->rig);
    tmpdir_clear();
}

static void
random_requests_agree_with_a_model(void **state)
{
    static const struct {
        const char *recipe;
        uint64_t backing_bytes;
    } images[] = {
        { "cluster 4096; size 200192; data-file data.raw; data 0-3 1; "
          "zero-alloc 5; zero 6", 0 },
        { "cluster 64K; size 1M; data-file data.raw; "
          "backing base.raw raw; data 0-3; zero 5", 600001 },
        { "cluster 512; size 20K; data-file data.raw; backing base.raw raw",
          20480 },
        { "cluster 4096; size 200192; data-file data.raw raw; data 0-48 1", 0 },
        { "cluster 4096; size 100K; data-file data.raw raw", 0 },
        { "cluster 16K; extended-l2; size 600K; data-file data.raw; "
          "subclusters 0 dzu; subclusters 3 dzu", 0 },
        { "cluster 16K; extended-l2; size 600K; data-file data.raw; "
          "backing base.raw raw; subclusters 0 pdzu", 400000 },
        { "cluster 16K; extended-l2; size 600K; data-file data.raw raw; "
          "data 0-37", 0 },
    };
    unsigned rounds = 2 * env_number("TEST_ROUNDS", 1);

    (void)state;
    for (unsigned n = 0; n < rounds * sizeof images / sizeof images[0]; n++) {
        unsigned i = n % (sizeof images / sizeof images[0]);
        struct trial t;

        start(&t, images[i].recipe, images[i].backing_bytes, n,
              n / (sizeof images / sizeof images[0]) % 2 ? &in_blocks : NULL);
        play_verify(&t.rig.play);
        for (uint64_t op = 0; op < NR_OPS; op++)
            random_op(&t, op);
        finish(&t);
    }
}

static uint64_t
length_of_data_file(void)
{
    struct stat st;

    EXPECT(stat(tmpdir_path("data.raw"), &st) == 0, "stat");
    return st.st_size;
}

static void
resize(struct trial *t, uint64_t size)
{
    struct play *p = &t->rig.play, old = *p;
    unsigned char *content = calloc(1, size);
    struct qcow2_error err;

    assert_non_null(content);
    EXPECT_OK(qcow2_resize(p->disk, size, true, &err), &err);
    memcpy(content, p->model.disk,
           size < p->model.size ? size : p->model.size);
    play_init(p, content, size);
    p->disk = old.disk;
    p->cluster_size = old.cluster_size;
    play_free(&old);
    free(content);
    EXPECT(length_of_data_file() == size, "length %llu",
           (unsigned long long)length_of_data_file());
    play_verify(&t->rig.play);
    rig_flush(&t->rig);
    expect_raw_file(t);
}

static void
the_data_file_is_as_long_as_the_disk(void **state)
{
    static const char *const recipes[] = {
        "cluster 4096; size 150016; data-file data.raw; data 0-36 1",
        "cluster 4096; size 150016; data-file data.raw raw; data 0-36 1",
        "cluster 16K; extended-l2; size 150016; data-file data.raw; data 0-9 1",
    };

    (void)state;
    for (unsigned n = 0; n < 2 * sizeof recipes / sizeof recipes[0]; n++) {
        unsigned i = n / 2;
        struct trial t;

        start(&t, recipes[i], 0, n, n % 2 ? &in_blocks : NULL);
        resize(&t, 70144);
        rig_play(&t.rig, OP_WRITE, 69632, 512, 0);
        resize(&t, 300032);
        rig_play(&t.rig, OP_WRITE, 299520, 512, 0);
        EXPECT(length_of_data_file() == 300032, "a write made it longer");
        resize(&t, 1024);
        resize(&t, 200704);
        finish(&t);
    }
}

/* As QEMU leaves it, or a power cut between both files. */
static void
what_lies_past_the_end_does_not_show_after_growing(void **state)
{
    struct trial t;
    FILE *f;

    (void)state;
    start(&t, "cluster 4096; size 4608; data-file data.raw raw; data 0-1", 0,
          0, NULL);
    f = fopen(tmpdir_path("data.raw"), "r+b");
    EXPECT(f && fseek(f, 4608, SEEK_SET) == 0
           && fputs("this was not written by the guest", f) >= 0
           && fseek(f, 9000, SEEK_SET) == 0
           && fputs("nor was that", f) >= 0 && fclose(f) == 0, "fopen");
    resize(&t, 20480);
    finish(&t);
}

/* As if it were shared: the L1 entry lacks COPIED. */
static void
a_table_that_is_copied_keeps_the_place_at_offset_0(void **state)
{
    static const char *const recipes[] = {
        "cluster 4096; size 200192; data-file data.raw; data 0-3 1;"
        "poke l1[0] & 0x7fffffffffffffff",
        "cluster 16K; extended-l2; size 600K; data-file data.raw; data 0-1 1;"
        "poke l1[0] & 0x7fffffffffffffff",
    };

    (void)state;
    for (unsigned i = 0; i < sizeof recipes / sizeof recipes[0]; i++) {
        struct trial t;

        start(&t, recipes[i], 0, i, NULL);
        rig_play(&t.rig, OP_WRITE, 65536, 4096, 0);
        play_verify(&t.rig.play);
        finish(&t);
    }
}

static void
expect_refused(const char *recipe, bool readonly, const char *why)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_disk *disk;
    struct qcow2_error err;

    expect_case("%s", recipe);
    if (recipe)
        builder_make(tmpdir_path("image"), recipe);
    options.readonly = readonly;
    disk = qcow2_open(tmpdir_path("image"), &options, &err);
    EXPECT(!disk, "opened");
    EXPECT(strstr(err.text, why) && strstr(err.text, "data file"), "%s",
           err.text);
}

static void
files_that_cannot_be_right_are_refused(void **state)
{
    static const char recipe[] = "size 1M; data-file data.raw; data 0";

    (void)state;
    for (int readonly = 0; readonly < 2; readonly++) {
        tmpdir_clear();
        expect_refused("size 1M; incompatible 2; "
                       "extension 0x44415441 image", readonly,
                       "the image itself");
        tmpdir_clear();
        expect_refused("size 1M; incompatible 2", readonly,
                       "does not say in which");
        builder_make(tmpdir_path("image"), recipe);
        unlink(tmpdir_path("data.raw"));
        expect_refused(NULL, readonly, "No such file");
        EXPECT(symlink("image", tmpdir_path("data.raw")) == 0, "symlink");
        expect_refused(NULL, readonly, "the image itself");
        unlink(tmpdir_path("data.raw"));
        EXPECT(symlink("/etc/passwd", tmpdir_path("data.raw")) == 0,
               "symlink");
        expect_refused(NULL, readonly, "outside");
        unlink(tmpdir_path("data.raw"));
        EXPECT(mkfifo(tmpdir_path("data.raw"), 0600) == 0, "mkfifo");
        expect_refused(NULL, readonly, "regular file");
        unlink(tmpdir_path("data.raw"));
        EXPECT(mkdir(tmpdir_path("data.raw"), 0700) == 0, "mkdir");
        expect_refused(NULL, readonly, "regular file");
        rmdir(tmpdir_path("data.raw"));
        tmpdir_write_file(tmpdir_path("data.raw"), "short", 5);
        expect_refused(NULL, readonly, "cut short");
    }
    tmpdir_clear();
}

static void
a_data_file_has_one_writer(void **state)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_disk *a, *b;
    struct qcow2_error err;

    (void)state;
    tmpdir_clear();
    builder_make(tmpdir_path("a"), "size 1M; data-file data.raw");
    builder_make(tmpdir_path("b"), "size 1M; data-file data.raw");
    a = qcow2_open(tmpdir_path("a"), &options, &err);
    EXPECT(a, "%s", err.text);
    b = qcow2_open(tmpdir_path("b"), &options, &err);
    EXPECT(!b && err.errnum == EBUSY, "two writers");
    options.readonly = true;
    b = qcow2_open(tmpdir_path("b"), &options, &err);
    EXPECT(!b && err.errnum == EBUSY, "a reader beside a writer");
    EXPECT_OK(qcow2_close(a, &err), &err);
    a = qcow2_open(tmpdir_path("a"), &options, &err);
    b = qcow2_open(tmpdir_path("b"), &options, &err);
    EXPECT(a && b, "%s", err.text);
    qcow2_close(a, NULL);
    qcow2_close(b, NULL);
    tmpdir_clear();
}

static void
a_file_is_not_twice_in_a_chain(void **state)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_disk *disk;
    struct qcow2_error err;

    (void)state;
    tmpdir_clear();
    options.no_lock = true;
    builder_make(tmpdir_path("base"), "size 1M; data-file data.raw");
    builder_make(tmpdir_path("image"),
                 "size 1M; data-file data.raw; backing base qcow2");
    disk = qcow2_open(tmpdir_path("image"), &options, &err);
    EXPECT(!disk && strstr(err.text, "as well"), "%s", err.text);
    builder_make(tmpdir_path("image"),
                 "size 1M; data-file data.raw; backing data.raw raw");
    disk = qcow2_open(tmpdir_path("image"), &options, &err);
    EXPECT(!disk && strstr(err.text, "as well"), "%s", err.text);
    tmpdir_clear();
}

static void
layers_have_data_files(void **state)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    enum { SIZE = 40 * 1024 };
    static unsigned char want[SIZE], got[SIZE];
    struct builder *b = builder_new();
    struct qcow2_disk *disk;
    struct qcow2_error err;

    (void)state;
    tmpdir_clear();
    builder_add(b, "cluster 4096; size 40K; data-file 0.raw; data 0-9 1");
    builder_write(b, tmpdir_path("0"));
    builder_overlay(b, -1, want, SIZE);
    builder_free(b);
    for (unsigned i = 1; i < 6; i++) {
        char name[] = { '0' + i, 0 };

        b = builder_new();
        builder_add(b, "cluster 4096; size 40K; data-file %u.raw; "
                    "backing %u qcow2; data %u %u; zero %u", i, i - 1,
                    i % 3, i + 7, i + 3);
        builder_write(b, tmpdir_path(name));
        builder_overlay(b, -1, want, SIZE);
        builder_free(b);
    }
    disk = qcow2_open(tmpdir_path("5"), &options, &err);
    EXPECT(disk, "%s", err.text);
    EXPECT_OK(qcow2_pread(disk, got, SIZE, 0, &err), &err);
    expect_same("chain", got, want, SIZE, 0);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    tmpdir_clear();
}

/* Offsets in tables have 56 bits, and a data file's are the disk's. */
static void
no_disk_is_larger_than_tables_can_map(void **state)
{
    struct qcow2_create_options create = { .data_file = "data.raw" };
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_disk *disk;
    struct qcow2_error err;
    struct alloc_run run;
    struct image *img;

    (void)state;
    tmpdir_clear();
    create.cluster_size = 2 << 20;
    create.size = MAX_HOST_OFFSET + 1;
    EXPECT(qcow2_create(tmpdir_path("image"), &create, &err) == -1
           && err.errnum == EINVAL, "created");
    create.size = 1 << 20;
    EXPECT_OK(qcow2_create(tmpdir_path("image"), &create, &err), &err);
    disk = qcow2_open(tmpdir_path("image"), &options, &err);
    EXPECT(disk, "%s", err.text);
    EXPECT(qcow2_resize(disk, MAX_HOST_OFFSET + 512, false, &err) == -1
           && err.errnum == EINVAL, "resized");
    EXPECT(qcow2_get_size(disk) == 1 << 20, "it has another size");
    /* Other programs made larger ones. */
    img = disk_image(disk);
    EXPECT(data_place(img, MAX_HOST_OFFSET, 1, &run, &err) == -1
           && err.errnum == EFBIG, "placed");
    EXPECT_OK(data_place(img, MAX_HOST_OFFSET - img->cluster_size, 1, &run,
                         &err), &err);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    tmpdir_clear();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_requests_agree_with_a_model),
        cmocka_unit_test(the_data_file_is_as_long_as_the_disk),
        cmocka_unit_test(what_lies_past_the_end_does_not_show_after_growing),
        cmocka_unit_test(a_table_that_is_copied_keeps_the_place_at_offset_0),
        cmocka_unit_test(files_that_cannot_be_right_are_refused),
        cmocka_unit_test(a_data_file_has_one_writer),
        cmocka_unit_test(a_file_is_not_twice_in_a_chain),
        cmocka_unit_test(layers_have_data_files),
        cmocka_unit_test(no_disk_is_larger_than_tables_can_map),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
