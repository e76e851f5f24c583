/* SPDX-License-Identifier: BSD-3-Clause */
/* nbd-liar.h: an NBD server in threads of the test that lies: about sizes,
 * blocks and flags, in the framing of its answers and in their numbers; that
 * breaks off anywhere, falls silent, or sends one byte at a time. The bytes
 * that it sends as data are always right: those of pattern_fill with
 * LIAR_PATTERN, in an export of any size.
 */
#ifndef NBD_LIAR_H
#define NBD_LIAR_H

#include <stdbool.h>
#include <stdint.h>

enum { LIAR_PATTERN = 77, LIAR_SIZE = 1 << 20 };

struct liar;

/* Listens on a socket in the temporary directory. */
struct liar *liar_start(void);
void liar_stop(struct liar *l);
const char *liar_uri(void);

/* Connections from now on lie as this seed has it. */
void liar_begin(struct liar *l, uint64_t seed);

/* Since liar_begin: did a lie give right data another offset, so that nobody
 * can notice; was the size a lie? */
bool liar_moved_data(struct liar *l);
bool liar_changed_size(struct liar *l);

/* Since liar_begin: writes of other bytes than the pattern's. */
unsigned liar_wrong_writes(struct liar *l);

/* So far. */
uint64_t liar_nr_lies(struct liar *l);
uint64_t liar_nr_connections(struct liar *l);

#endif /* NBD_LIAR_H */
