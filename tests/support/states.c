/* SPDX-License-Identifier: BSD-3-Clause */
/* states.c: see states.h. */
#include "states.h"

#include <stdlib.h>

#include "expect.h"
#include "oracle.h"
#include "rng.h"
#include "tmpdir.h"

/* Of this program. */
static struct {
    struct crash_stats stats;
    uint64_t nr_candidates, nr_asked;
} sum;

bool
states_are_many(void)
{
    return env_number("CRASH_LONG", 0);
}

void
states_tried(const struct crash_stats *stats)
{
    sum.stats.nr_points += stats->nr_points;
    sum.stats.nr_sampled += stats->nr_sampled;
    sum.stats.nr_states += stats->nr_states;
    sum.stats.nr_distinct += stats->nr_distinct;
}

/* What it makes of an image that was not closed properly. */
static void
expect_repaired(const char *path)
{
    size_t nr_bytes;
    unsigned char *bytes;
    struct audit a;
    int status = oracle_run("qemu-img check -q -f qcow2 -r all '%s' "
                            ">/dev/null 2>&1", path);

    EXPECT(status == 0, "qemu-img check -r all: exit status %d", status);
    bytes = tmpdir_read_file(path, &nr_bytes);
    audit_image(bytes, nr_bytes, &a);
    free(bytes);
    EXPECT(a.nr_corruptions == 0 && !a.dirty, "repaired by qemu-img: %u "
           "corruptions (%s)%s", a.nr_corruptions, a.first,
           a.dirty ? ", dirty" : "");
}

void
states_ask_qemu(struct mem *state, bool dirty, bool flags_may_be_wrong)
{
    uint64_t every = env_number("CRASH_QEMU_EVERY",
                                states_are_many() ? 200 : 400);
    const char *path = tmpdir_path("state");
    struct oracle_check c;

    if (every == 0 || sum.nr_candidates++ % every != 0 || !oracle_present())
        return;
    sum.nr_asked++;
    mem_save(state, path);
    if (dirty) {
        expect_repaired(path);
        return;
    }
    oracle_check(path, &c);
    EXPECT(c.exit_status != 1 && c.check_errors == 0
           && (c.corruptions == 0 || flags_may_be_wrong),
           "qemu-img check: exit status %d, %ld corruptions", c.exit_status,
           c.corruptions);
}

struct audit
states_expect_sound(struct mem *state)
{
    uint64_t nr_bytes;
    const unsigned char *bytes = mem_bytes(state, &nr_bytes);
    bool version_2 = bytes[7] == 2;
    struct audit a;

    audit_image(bytes, nr_bytes, &a);
    EXPECT(a.nr_corruptions == audit_nr_mendable(&a) && !a.corrupt,
           "%u corruptions: %s", a.nr_corruptions - audit_nr_mendable(&a),
           a.first);
    EXPECT(a.dirty || version_2 || a.nr_miscopied + a.nr_uncopied == 0,
           "COPIED flags are wrong, and the image is not dirty: %s", a.first);
    states_ask_qemu(state, a.dirty, version_2);
    return a;
}

void
states_print(void)
{
    print_message("crash states: %llu tried, of %llu made at %llu cuts (%llu "
                  "of them sampled), %llu by qemu-img check; TEST_SEED=%llu"
                  "\n", (unsigned long long)sum.stats.nr_distinct,
                  (unsigned long long)sum.stats.nr_states,
                  (unsigned long long)sum.stats.nr_points,
                  (unsigned long long)sum.stats.nr_sampled,
                  (unsigned long long)sum.nr_asked,
                  (unsigned long long)rng_seed(1));
}
