/* SPDX-License-Identifier: BSD-3-Clause */
/* rng.h: random numbers that a seed repeats, and the data of test clusters.
 */
#ifndef RNG_H
#define RNG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rng {
    uint64_t state;
};

/* TEST_SEED from the environment, or the fallback: runs are the same every
 * time unless somebody asks for others. */
uint64_t rng_seed(uint64_t fallback);

/* Streams of one seed differ by number, so that a case can be repeated
 * without the cases before it. */
void rng_init(struct rng *r, uint64_t seed, uint64_t stream);

uint64_t rng_next(struct rng *r);
uint64_t rng_below(struct rng *r, uint64_t n); /* n > 0 */
bool rng_percent(struct rng *r, unsigned percent);

/* Bytes [off, off + nr_bytes) of the endless content called `seed`. Any two
 * 8-byte words of it differ, and it compresses to a fraction. Seed 0 is
 * zeroes.
 */
void pattern_fill(void *buf, size_t nr_bytes, uint64_t seed, uint64_t off);

/* A number from the environment. */
uint64_t env_number(const char *name, uint64_t fallback);

#endif /* RNG_H */
