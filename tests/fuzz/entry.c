/* SPDX-License-Identifier: BSD-3-Clause */
/* entry.c: what libFuzzer and AFL++ call. FUZZ_TARGET in the environment
 * names the target.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bases.h"
#include "bounds.h"
#include "input.h"
#include "rng.h"
#include "session.h"
#include "targets.h"

/* The promise is a second. Sanitizers, and counting what is covered, take
 * several times as long; fuzz/run.sh runs all that was kept without them. */
enum { MAX_CPU_MS = 5000 };

static const struct target *target;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nr_bytes);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t nr_bytes, size_t max,
                               unsigned seed);
/* libFuzzer has it, and alone calls the one above. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t nr_bytes, size_t max)
    __attribute__((weak));

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *name = getenv("FUZZ_TARGET");

    (void)argc, (void)argv;
    target = target_find(name ? name : "");
    if (!target) {
        fprintf(stderr, "FUZZ_TARGET must be one of:");
        for (unsigned i = 0; i < nr_targets; i++)
            fprintf(stderr, " %s", targets[i].name);
        fputc('\n', stderr);
        exit(2);
    }
    bounds_limit_cpu(MAX_CPU_MS);
    return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t nr_bytes)
{
    target_run(target, data, nr_bytes);
    return 0;
}

/* A command that may do something; its numbers are mostly small, or bits. */
static void
make_command(uint8_t *c, struct rng *r)
{
    uint64_t n = rng_next(r) >> rng_below(r, 64);

    if (rng_percent(r, 30))
        n = rng_next(r) & UINT64_C(0xe0000000001fffff);
    c[0] = rng_percent(r, 50) ? 0x80 + rng_below(r, NR_OPERATIONS)
                              : rng_below(r, PATCH_BYTES + 1);
    c[1] = c[0] & 0x80 ? rng_next(r)
                       : rng_below(r, NR_PLACES) | rng_below(r, NR_VALUES) << 4;
    c[2] = rng_percent(r, 80) ? 0 : rng_next(r);
    c[3] = rng_next(r) >> rng_below(r, 8);
    for (unsigned i = 0; i < 8; i++)
        c[4 + i] = n >> (56 - 8 * i);
}

/* Commands of inputs that begin with a base are changed as a whole, half of
 * the time. */
size_t
LLVMFuzzerCustomMutator(uint8_t *data, size_t nr_bytes, size_t max,
                        unsigned seed)
{
    size_t nr = nr_bytes > 0 ? (nr_bytes - 1) / COMMAND_BYTES : 0, i, j;
    uint8_t *c, *other;
    struct rng r;

    rng_init(&r, seed, nr_bytes);
    if (nr_bytes == 0 || data[0] >= nr_bases || rng_percent(&r, 50)
        || strcmp(target->name, "decompress") == 0)
        return LLVMFuzzerMutate(data, nr_bytes, max);
    i = rng_below(&r, nr + 1);
    j = rng_below(&r, nr + 1);
    c = data + 1 + i * COMMAND_BYTES;
    other = data + 1 + j * COMMAND_BYTES;
    nr_bytes = 1 + nr * COMMAND_BYTES;
    switch (rng_below(&r, 5)) {
    case 0: /* one more, new or again */
    case 1:
        if (nr_bytes + COMMAND_BYTES > max)
            return nr_bytes;
        memmove(c + COMMAND_BYTES, c, data + nr_bytes - c);
        if (rng_percent(&r, 50) || j >= nr)
            make_command(c, &r);
        else
            memmove(c, j < i ? other : other + COMMAND_BYTES, COMMAND_BYTES);
        return nr_bytes + COMMAND_BYTES;
    case 2: /* one less */
        if (i == nr)
            return nr_bytes;
        memmove(c, c + COMMAND_BYTES, data + nr_bytes - c - COMMAND_BYTES);
        return nr_bytes - COMMAND_BYTES;
    case 3: /* another base */
        data[0] = rng_below(&r, nr_bases);
        return nr_bytes;
    default: /* one is changed */
        if (i < nr && rng_percent(&r, 50))
            make_command(c, &r);
        else if (i < nr)
            LLVMFuzzerMutate(c, COMMAND_BYTES, COMMAND_BYTES);
        return nr_bytes;
    }
}
