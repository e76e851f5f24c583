/* SPDX-License-Identifier: BSD-3-Clause */
/* test-chain-info: what each layer of a chain owns, shows, and would add to
 * the next one.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "expect.h"
#include "layers.h"
#include "rng.h"
#include "tmpdir.h"

static struct qcow2_disk *
open_disk(const char *name, bool readonly)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_error err;
    struct qcow2_disk *disk;

    options.readonly = readonly;
    disk = qcow2_open(tmpdir_path(name), &options, &err);
    EXPECT(disk, "open %s: %s", name, err.text);
    return disk;
}

static void
expect_usage(struct qcow2_disk *disk, unsigned layer, uint64_t own,
             uint64_t visible, uint64_t added)
{
    struct qcow2_layer_usage u;
    struct qcow2_error err;

    expect_step("layer %u", layer);
    EXPECT_OK(qcow2_get_layer_usage(disk, layer, &u, &err), &err);
    EXPECT(u.own == own && u.visible == visible && u.added == added,
           "own %llu, visible %llu, added %llu",
           (unsigned long long)u.own, (unsigned long long)u.visible,
           (unsigned long long)u.added);
}

static void
layers_own_show_and_add(void **state)
{
    const uint64_t k = 1024;
    unsigned char *raw = calloc(1, 1 << 20);
    struct qcow2_layer layer;
    struct qcow2_disk *disk;
    struct qcow2_error err;

    (void)state;
    tmpdir_clear();
    expect_case("usage");
    pattern_fill(raw, 64 * k, 1, 0);
    tmpdir_write_file(tmpdir_path("base"), raw, 512 * k);
    EXPECT(truncate(tmpdir_path("base"), 64 * k) == 0
           && truncate(tmpdir_path("base"), 512 * k) == 0, "truncate");
    builder_make(tmpdir_path("mid"), "cluster 4K; size 1M; backing base raw;"
                 "data 14-17 2; zero 20-21; compressed 200 3");
    builder_make(tmpdir_path("top"), "cluster 8K; size 900K;"
                 "backing mid qcow2; data 8 4; snapshot 1 one; zero 3;"
                 "data 50 1");
    for (unsigned readonly = 0; readonly < 2; readonly++) {
        disk = open_disk("top", readonly);
        EXPECT(qcow2_get_nr_layers(disk) == 3, "layers");
        expect_usage(disk, 0, 24 * k, 24 * k, 8 * k);
        /* of 4K clusters: 16 and 17 are hidden */
        expect_usage(disk, 1, 28 * k, 20 * k, 12 * k);
        expect_usage(disk, 2, 64 * k, 48 * k, 0);
        EXPECT(qcow2_get_layer_usage(disk, 3, NULL, &err) == -1
               && err.errnum == EINVAL, "%s", err.text);

        EXPECT_OK(qcow2_get_layer(disk, 0, &layer, &err), &err);
        EXPECT(layer.format == QCOW2_FORMAT_QCOW2 && layer.size == 900 * k
               && layer.nr_snapshots == 1
               && strcmp(layer.backing, "mid") == 0
               && strcmp(layer.backing_format, "qcow2") == 0, "layer 0");
        EXPECT_OK(qcow2_get_layer(disk, 2, &layer, &err), &err);
        EXPECT(layer.format == QCOW2_FORMAT_RAW && layer.size == 512 * k
               && layer.allocated == 64 * k && !layer.backing[0], "layer 2");
        EXPECT(qcow2_get_layer(disk, 3, &layer, &err) == -1
               && err.errnum == EINVAL, "%s", err.text);
        qcow2_close(disk, NULL);
    }
    free(raw);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layers_own_show_and_add),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
