/* SPDX-License-Identifier: BSD-3-Clause */
/* test-nbd-lies: disks and backing files on NBD servers that lie. Every
 * request ends, with an error or with the right bytes.
 */
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "builder.h"
#include "expect.h"
#include "nbd-liar.h"
#include "rng.h"
#include "tmpdir.h"

enum { NR_REQUESTS = 6, MOST = 70000, TIMEOUT_MS = 40, PATIENCE = 600 };

enum way { RAW, RAW_READONLY, OVERLAY, NR_WAYS };

static unsigned long nr_opened, nr_done, nr_requests;

static struct qcow2_disk *
open_way(enum way way, struct qcow2_error *err)
{
    static const char *const allow[] = { "nbd+unix:///" };
    struct qcow2_options options = QCOW2_OPTIONS_INIT;

    options.readonly = way != RAW;
    options.nbd_timeout_ms = TIMEOUT_MS;
    options.allow = allow;
    options.nr_allow = 1;
    if (way == OVERLAY)
        return qcow2_open(tmpdir_path("overlay"), &options, err);
    options.format = QCOW2_FORMAT_RAW;
    return qcow2_open(liar_uri(), &options, err);
}

static int
ignore_extent(void *opaque, const struct qcow2_extent *e)
{
    unsigned *nr = opaque;

    return !e->nr_bytes || ++*nr > 1000;
}

/* Returns whether a read gave other bytes. */
static bool
do_request(struct qcow2_disk *disk, struct rng *r)
{
    static unsigned char want[MOST], got[MOST];
    uint64_t size = qcow2_get_size(disk), off, nr_bytes;
    unsigned nr = 0;
    int result;

    if (size == 0)
        return false;
    off = rng_below(r, size);
    nr_bytes = 1 + rng_below(r, size - off < MOST ? size - off : MOST);
    nr_requests++;
    switch (rng_below(r, 6)) {
    case 0:
        pattern_fill(want, nr_bytes, LIAR_PATTERN, off);
        result = qcow2_pwrite(disk, want, nr_bytes, off, 0, NULL);
        break;
    case 1:
        result = qcow2_flush(disk, NULL);
        break;
    case 2:
        result = qcow2_trim(disk, nr_bytes, off, 0, NULL);
        break;
    case 3:
        result = qcow2_map(disk, nr_bytes, off, ignore_extent, &nr, NULL);
        break;
    default:
        pattern_fill(want, nr_bytes, LIAR_PATTERN, off);
        result = qcow2_pread(disk, got, nr_bytes, off, NULL);
        if (result == 0 && memcmp(got, want, nr_bytes) != 0)
            return true;
    }
    nr_done += result == 0;
    return false;
}

static void
try_seed(struct liar *liar, uint64_t seed)
{
    struct qcow2_disk *disk;
    struct qcow2_error err;
    struct rng r;
    bool wrong = false;
    enum way way;

    expect_case("TEST_SEED=%llu", (unsigned long long)seed);
    rng_init(&r, seed, 0);
    liar_begin(liar, seed);
    way = rng_below(&r, NR_WAYS);
    disk = open_way(way, &err);
    if (!disk) {
        EXPECT(err.errnum != 0 && err.text[0], "no reason");
        return;
    }
    nr_opened++;
    for (unsigned i = 0; i < NR_REQUESTS; i++)
        wrong |= do_request(disk, &r);
    qcow2_close(disk, NULL);
    if (liar_moved_data(liar) || (way == OVERLAY && liar_changed_size(liar)))
        return;
    EXPECT(!wrong, "a read gave wrong bytes");
    EXPECT(liar_wrong_writes(liar) == 0, "wrong bytes were written");
}

static void
lies_do_no_harm(void **state)
{
    uint64_t seed = rng_seed(1), nr = env_number("TEST_ROUNDS", 300);
    struct liar *liar;
    char recipe[1400];

    (void)state;
    if (!qcow2_has_feature("nbd"))
        skip();
    tmpdir_clear();
    snprintf(recipe, sizeof recipe, "size 1M; backing %s raw", liar_uri());
    builder_make(tmpdir_path("overlay"), recipe);
    liar = liar_start();
    for (uint64_t i = 0; i < nr; i++) {
        alarm(PATIENCE); /* nothing may wait for ever */
        try_seed(liar, seed + i);
    }
    alarm(0);
    EXPECT(nr_opened > nr / 10 && nr_done > nr_requests / 10,
           "%lu opened, %lu of %lu requests done: too few to mean anything",
           nr_opened, nr_done, nr_requests);
    printf("%llu connections, %llu lies; %lu opened, %lu of %lu requests "
           "done\n", (unsigned long long)liar_nr_connections(liar),
           (unsigned long long)liar_nr_lies(liar), nr_opened, nr_done,
           nr_requests);
    liar_stop(liar);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lies_do_no_harm),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
