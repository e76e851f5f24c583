/* SPDX-License-Identifier: BSD-3-Clause */
/* rng.c: see rng.h. */
#include "rng.h"

#include <stdlib.h>
#include <string.h>

/* The finisher of splitmix64. */
static uint64_t
mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t
env_number(const char *name, uint64_t fallback)
{
    const char *s = getenv(name);

    return s && *s ? strtoull(s, NULL, 0) : fallback;
}

uint64_t
rng_seed(uint64_t fallback)
{
    return env_number("TEST_SEED", fallback);
}

void
rng_init(struct rng *r, uint64_t seed, uint64_t stream)
{
    r->state = mix(seed) ^ mix(stream + UINT64_C(0x9e3779b97f4a7c15));
}

uint64_t
rng_next(struct rng *r)
{
    r->state += UINT64_C(0x9e3779b97f4a7c15);
    return mix(r->state);
}

uint64_t
rng_below(struct rng *r, uint64_t n)
{
    return rng_next(r) % n;
}

bool
rng_percent(struct rng *r, unsigned percent)
{
    return rng_below(r, 100) < percent;
}

/* Eight words share seven bytes, so that deflate finds repetitions. */
static uint64_t
pattern_word(uint64_t seed, uint64_t index)
{
    uint64_t word = mix(mix(seed) + (index >> 3) + 1);

    return (word & ~UINT64_C(0xff)) | (((word & 31) << 3 | (index & 7)) ^ 1);
}

void
pattern_fill(void *buf, size_t nr_bytes, uint64_t seed, uint64_t off)
{
    unsigned char *p = buf;

    if (seed == 0) {
        memset(p, 0, nr_bytes);
        return;
    }
    while (nr_bytes > 0) {
        uint64_t word = pattern_word(seed, off / 8);
        size_t from = off % 8, n = 8 - from;

        if (n > nr_bytes)
            n = nr_bytes;
        memcpy(p, (const unsigned char *)&word + from, n);
        p += n;
        off += n;
        nr_bytes -= n;
    }
}
