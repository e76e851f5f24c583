/* SPDX-License-Identifier: BSD-3-Clause */
/* test-swapper: a thread exchanges files, directories and links under all that
 * opens files by name: the engine, qcow2-img and the server. Nothing outside
 * the directory may be opened or changed, and a file that was found is the one
 * that is read. TEST_ROUNDS makes other runs, SWAPPER_SECONDS longer ones
 * (`make check-swapper`).
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "builder.h"
#include "expect.h"
#include "oracle.h"
#include "qcow2.h"
#include "rng.h"
#include "tmpdir.h"

enum { SIZE = 65536, SECRET = 0x5e, ROUNDS = 150 };

/* Rounds between two runs of a program, which take longer. */
enum { TOOL_EVERY = 5, SERVER_EVERY = 40 };

/* What is exchanged in root: each is at one of its two names. */
static const char *const pairs[][2] = {
    { "one.qcow2", "to-secret" },
    { "two.qcow2", "one.qcow2" },
    { "base", "to-outside-base" },
    { "sub", "to-outside" },
    { "base", "sub" },
    { "allowed", "to-outside" },
};
enum { NR_PAIRS = sizeof pairs / sizeof pairs[0] };

struct swapper {
    pthread_t thread;
    int root_fd;
    bool stop;              /* atomic */
    unsigned long nr_swaps; /* atomic */
};

/* The files that may be found in root, and their first bytes. */
struct known {
    uint64_t ino;
    unsigned char byte;
};

enum { NR_VERBS = 7 };

struct scene {
    struct swapper swapper;
    int root_fd, allowed_fd, watch;
    char root[512];
    struct known known[8];
    unsigned nr_known;
    unsigned long nr_done[NR_VERBS], nr_refused[NR_VERBS];
};

static void *
swap_on(void *opaque)
{
    struct swapper *s = opaque;
    struct rng rng;

    rng_init(&rng, rng_seed(1), 99);
    while (!__atomic_load_n(&s->stop, __ATOMIC_RELAXED)) {
        const char *const *pair = pairs[rng_below(&rng, NR_PAIRS)];

        if (renameat2(s->root_fd, pair[0], s->root_fd, pair[1],
                      RENAME_EXCHANGE) == 0)
            __atomic_add_fetch(&s->nr_swaps, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

static void
fill(const char *name, unsigned char byte)
{
    unsigned char *bytes = malloc(SIZE);

    assert_non_null(bytes);
    memset(bytes, byte, SIZE);
    tmpdir_write_file(tmpdir_path(name), bytes, SIZE);
    free(bytes);
}

static void
note(struct scene *s, const char *name, unsigned char byte)
{
    struct stat st;

    assert_int_equal(stat(tmpdir_path(name), &st), 0);
    s->known[s->nr_known++] = (struct known){ st.st_ino, byte };
}

/* An image full of one byte. */
static void
make_image(const char *name, unsigned char byte)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_error err;
    struct qcow2_disk *disk;
    char buf[512];

    builder_make(tmpdir_path(name), "size 64K");
    disk = qcow2_open(tmpdir_path(name), &options, &err);
    EXPECT(disk, "%s", err.text);
    memset(buf, byte, sizeof buf);
    EXPECT_OK(qcow2_pwrite(disk, buf, sizeof buf, 0, 0, &err), &err);
    EXPECT_OK(qcow2_close(disk, &err), &err);
}

static void
make_scene(struct scene *s)
{
    memset(s, 0, sizeof *s);
    oracle_run("cd '%s' && mkdir -p root/sub root/allowed outside copies",
               tmpdir());
    snprintf(s->root, sizeof s->root, "%s", tmpdir_path("root"));
    fill("outside/secret", SECRET);
    fill("outside/base", SECRET);
    fill("outside/undo", SECRET);
    fill("three", 3);
    make_image("outside/one.qcow2", SECRET);
    make_image("root/one.qcow2", 1);
    make_image("root/two.qcow2", 2);
    fill("root/base", 3);
    fill("root/sub/base", 3);
    fill("root/allowed/base", 3);
    oracle_run("cd '%s/root' && ln -s ../outside/secret to-secret && "
               "ln -s ../outside to-outside && "
               "ln -s '%s/outside/base' to-outside-base", tmpdir(), tmpdir());
    builder_make(tmpdir_path("root/top"), "size 64K; backing base raw");
    builder_make(tmpdir_path("root/deep"), "size 64K; backing sub/base raw");
    builder_make(tmpdir_path("root/dots"),
                 "size 64K; backing sub/../base raw");
    note(s, "root/one.qcow2", 1);
    note(s, "root/two.qcow2", 2);
    note(s, "root/base", 3);
    s->root_fd = open(s->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    s->allowed_fd = open(tmpdir_path("root/allowed"),
                         O_PATH | O_DIRECTORY | O_CLOEXEC);
    s->watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    assert_true(s->watch >= 0);
    assert_true(inotify_add_watch(s->watch, tmpdir_path("outside"),
                                  IN_OPEN | IN_MODIFY | IN_CREATE | IN_DELETE
                                  | IN_MOVE | IN_ONLYDIR) >= 0);
    s->swapper.root_fd = s->root_fd;
}

/* Nothing was opened or changed outside. (IN_ISDIR: a directory is not.) */
static void
expect_no_events(struct scene *s)
{
    char buf[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
    ssize_t n;

    while ((n = read(s->watch, buf, sizeof buf)) > 0)
        for (char *p = buf; p < buf + n;) {
            struct inotify_event *e = (struct inotify_event *)p;

            EXPECT(e->mask & (IN_ISDIR | IN_IGNORED),
                   "outside/%s: event %#x", e->len ? e->name : "", e->mask);
            p += sizeof *e + e->len;
        }
}

static unsigned char
first_byte(struct qcow2_disk *disk)
{
    struct qcow2_error err;
    unsigned char byte;

    EXPECT_OK(qcow2_pread(disk, &byte, 1, 0, &err), &err);
    EXPECT(byte != SECRET, "the secret shows");
    return byte;
}

/* As the server finds exports: the file that was found is what is served. */
static bool
find_and_open(struct scene *s, struct rng *rng)
{
    static const char *const names[] = {
        "one.qcow2", "two.qcow2", "base", "to-secret", "to-outside-base",
    };
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_error err;
    struct qcow2_file *file =
        qcow2_find_file_in(s->root_fd, names[rng_below(rng, 5)], &err);
    struct qcow2_disk *disk;
    uint64_t ino;
    unsigned i = 0;

    if (!file)
        return false;
    ino = qcow2_file_get_id(file).ino;
    while (i < s->nr_known && s->known[i].ino != ino)
        i++;
    EXPECT(i < s->nr_known, "found a file that is not in the directory");
    options.readonly = true;
    options.probe_raw = true;
    options.file = file;
    disk = qcow2_open("found", &options, &err);
    EXPECT(disk, "%s", err.text);
    assert_int_equal(first_byte(disk), s->known[i].byte);
    qcow2_close(disk, NULL);
    qcow2_file_free(file);
    return true;
}

static const char *
path_in(const struct scene *s, const char *name)
{
    static char path[1024];

    snprintf(path, sizeof path, "%s/%s", s->root, name);
    return path;
}

/* A chain, of which the names below the image are exchanged. */
static bool
open_chain(struct scene *s, struct rng *rng)
{
    static const char *const names[] = { "top", "deep", "dots" };
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    const char *allow[1];
    char allowed[64];
    struct qcow2_disk *disk;

    snprintf(allowed, sizeof allowed, "/proc/self/fd/%d", s->allowed_fd);
    allow[0] = allowed;
    options.readonly = true;
    options.allow = allow;
    options.nr_allow = rng_below(rng, 2);
    disk = qcow2_open(path_in(s, names[rng_below(rng, 3)]), &options, NULL);
    if (!disk)
        return false;
    assert_int_equal(first_byte(disk), 3);
    qcow2_close(disk, NULL);
    return true;
}

static bool
show_chain(struct scene *s, struct rng *rng)
{
    struct qcow2_info_options options = { .chain = true };
    struct qcow2_info *info =
        qcow2_get_info(path_in(s, rng_percent(rng, 50) ? "top" : "deep"),
                       &options, NULL);
    bool shown;

    assert_non_null(info);
    shown = info->backing != NULL;
    qcow2_info_free(info);
    return shown;
}

/* What is done with an image that is open. */
static bool
change(const char *path, struct rng *rng)
{
    const struct qcow2_snapshot_create_options create = { .date_sec = 1 };
    const struct qcow2_amend_options amend = { .version = 2 };
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_disk *disk = qcow2_open(path, &options, NULL);
    bool done = false;

    if (!disk)
        return false;
    switch (rng_below(rng, 3)) {
    case 0:
        done = qcow2_resize(disk, 2 * SIZE, false, NULL) == 0;
        break;
    case 1:
        done = qcow2_amend(disk, &amend, NULL) == 0;
        break;
    case 2:
        done = qcow2_snapshot_create(disk, "one", &create, NULL) == 0
               && qcow2_snapshot_apply(disk, "one", NULL) == 0
               && qcow2_snapshot_delete(disk, "one", NULL) == 0;
        break;
    }
    return qcow2_close(disk, NULL) == 0 && done;
}

static bool
check_and_repair(const char *path)
{
    const struct qcow2_check_options options = {
        .repair = QCOW2_REPAIR_ALL,
    };
    struct qcow2_check_result result;
    struct qcow2_error err;

    EXPECT_OK(qcow2_check(path, &options, &result, &err), &err);
    return result.corruptions == 0;
}

/* A new overlay, and what can be done with it. The base that a user names is
 * trusted wherever it is, so only later openings may not leave the directory.
 */
static bool
make_overlay(struct scene *s, struct rng *rng)
{
    struct qcow2_create_options create = {
        .size = SIZE, .backing_format = QCOW2_FORMAT_RAW,
        .backing_unchecked = true,
    };
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_commit_options commit = { .keep = rng_percent(rng, 50) };
    struct qcow2_rebase_options rebase = { .backing = NULL };
    const char *path = path_in(s, "new");
    struct qcow2_job *job = NULL;
    unsigned what = rng_below(rng, 6);
    bool done;

    create.backing = rng_percent(rng, 50) ? "base" : "sub/base";
    if (qcow2_create(path, &create, NULL) == -1) {
        assert_int_equal(faccessat(s->root_fd, "new", F_OK,
                                   AT_SYMLINK_NOFOLLOW), -1);
        return false;
    }
    if (what < 2)
        job = qcow2_commit(path, &options, &commit, NULL);
    else if (what < 4)
        job = qcow2_rebase(path, &options, &rebase, NULL);
    if (what < 4)
        done = job && qcow2_job_run(job, NULL, NULL, NULL) == 0;
    else if (what == 4)
        done = change(path, rng);
    else
        done = check_and_repair(path);
    qcow2_job_free(job);
    unlinkat(s->root_fd, "new", 0);
    return done;
}

/* A copy of a chain, to a file that must not be there. */
static bool
copy(struct scene *s, struct rng *rng)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_convert_options convert = {
        .format = rng_percent(rng, 50) ? QCOW2_FORMAT_RAW
                                       : QCOW2_FORMAT_QCOW2,
    };
    struct qcow2_disk *disk;
    struct qcow2_job *job;
    bool done;

    options.readonly = true;
    disk = qcow2_open(path_in(s, "top"), &options, NULL);
    if (!disk)
        return false;
    job = qcow2_convert(&disk, 1, path_in(s, "copy"), &convert, NULL);
    done = job && qcow2_job_run(job, NULL, NULL, NULL) == 0;
    qcow2_job_free(job);
    qcow2_close(disk, NULL);
    assert_int_equal(unlinkat(s->root_fd, "copy", 0), done ? 0 : -1);
    return done;
}

/* --- Programs ----------------------------------------------------------- */

/* Does anything of the secret show in what was copied? */
static void
expect_no_secret(const char *what)
{
    EXPECT(oracle_run("cd '%s' && ! grep -rqF '^' copies", tmpdir()) == 0,
           "%s: the secret shows", what);
}

/* The verbs of the tool, each on its own copy of an image whose backing files
 * are exchanged. What the command line names is not exchanged, but for the
 * directory of the undo file: in the one outside there is a file already. */
static bool
run_tool(struct scene *s, struct rng *rng)
{
    static const char *const commands[] = {
        "commit -q made", "commit -q -d made", "rebase -q -b '' made",
        "rebase -q -b top -F qcow2 made", "resize -q made +64K",
        "check -q -r all --undo=sub/undo made", "check -q made",
        "amend -q -o compat=0.10 made", "snapshot -q -c one made",
        "convert -O raw made ../copies/raw", "map --output=json made",
        "dd -O raw if=made of=../copies/raw", "measure -O qcow2 made",
        "info --backing-chain made", "chain made", "bench -q -w -c 3 made",
    };
    static unsigned nr_calls;
    const char *command, *from;
    bool done;

    if (nr_calls++ % TOOL_EVERY != 0)
        return false;
    command = commands[rng_below(rng, sizeof commands / sizeof commands[0])];
    from = rng_percent(rng, 50) ? "top" : rng_percent(rng, 50) ? "deep"
                                                               : "dots";
    done = oracle_run("tool=$PWD/../qcow2/tool/qcow2-img; cd '%s' && "
                      "cp %s made && exec \"$tool\" %s >../copies/out 2>&1",
                      s->root, from, command) == 0;
    expect_no_secret(command);
    oracle_run("cd '%s' && rm -f root/made copies/*", tmpdir());
    return done;
}

/* The server of all files, not restricted, and a client that reads them and
 * writes to one what is there. (A copy that it read may be of zeroes: nbdcopy
 * makes the file, and then connects again, perhaps in vain.) */
static bool
run_server(struct scene *s, struct rng *rng)
{
    static unsigned nr_calls;
    bool done;

    (void)rng;
    if (nr_calls++ % SERVER_EVERY != 0)
        return false;
    done = oracle_run(
        "plugin=$PWD/../plugin/.libs/nbdkit-qcow2-plugin.so; cd '%s' && "
        "nbdkit -U - \"$plugin\" sandbox=off dir='%s' --run '"
        "for name in one.qcow2 two.qcow2 to-secret to-outside-base top deep "
        "dots base; do "
        "nbdcopy \"nbd+unix:///$name?socket=$unixsocket\" $name; done; "
        "nbdcopy ../three \"nbd+unix:///base?socket=$unixsocket\"; "
        "nbdinfo --list \"$uri\" >list; test -s list' >out 2>&1",
        tmpdir_path("copies"), s->root) == 0;
    expect_no_secret("server");
    oracle_run("rm -f '%s'/copies/*", tmpdir());
    return done;
}

static bool (*const verbs[])(struct scene *s, struct rng *rng) = {
    find_and_open, open_chain, show_chain, make_overlay, copy, run_tool,
    run_server,
};
_Static_assert(sizeof verbs / sizeof verbs[0] == NR_VERBS, "NR_VERBS");

static void
nothing_outside_is_reached(void **state)
{
    unsigned seconds = env_number("SWAPPER_SECONDS", 0);
    unsigned rounds = env_number("TEST_ROUNDS", ROUNDS);
    time_t end = time(NULL) + seconds;
    struct scene s;
    struct rng rng;

    (void)state;
    make_scene(&s);
    rng_init(&rng, rng_seed(1), 0);
    assert_int_equal(pthread_create(&s.swapper.thread, NULL, swap_on,
                                    &s.swapper), 0);
    for (unsigned i = 0; seconds ? time(NULL) < end : i < rounds; i++)
        for (unsigned v = 0; v < NR_VERBS; v++) {
            expect_case("round %u verb %u", i, v);
            if (verbs[v](&s, &rng))
                s.nr_done[v]++;
            else
                s.nr_refused[v]++;
            expect_no_events(&s);
        }
    __atomic_store_n(&s.swapper.stop, true, __ATOMIC_RELAXED);
    pthread_join(s.swapper.thread, NULL);
    for (unsigned v = 0; v < NR_VERBS; v++)
        printf("verb %u: %lu done, %lu refused\n", v, s.nr_done[v],
               s.nr_refused[v]);
    printf("swaps: %lu\n", s.swapper.nr_swaps);
    assert_true(s.swapper.nr_swaps > 0);
    close(s.watch);
    close(s.root_fd);
    close(s.allowed_fd);
    oracle_run("rm -rf '%s'/*", tmpdir());
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_outside_is_reached),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
