/* SPDX-License-Identifier: BSD-3-Clause */
/* session.h: a disk on a fuzzed file, what is done to it, and what must hold
 * of that.
 *
 * Always: nothing crashes, bounds are kept, extents cover what was asked for
 * and tell the truth. Of a file in which a check finds nothing wrong (a
 * "sound" one) more: whatever an operation does, the disk and its snapshots
 * read as a flat model says, also when opened anew, and a check finds nothing
 * wrong afterwards either.
 */
#ifndef SESSION_H
#define SESSION_H

#include <stdbool.h>

#include "input.h"
#include "qcow2.h"

/* Operations are kinds of commands, 0x80 + one of these (modulo their
 * number). a: flags; b and c: where and how much.
 */
enum operation {
    DO_READ, DO_WRITE, DO_ZERO, DO_TRIM, DO_FLUSH, DO_REOPEN, DO_MAP,
    DO_CREATE, DO_APPLY, DO_DELETE, DO_RESIZE, DO_PREALLOCATE, DO_AMEND,
    DO_LOOK, DO_PREFETCH, DO_COMPRESSED,
    NR_OPERATIONS
};
enum {
    A_FUA = 1, A_MAY_TRIM = 2, A_FAST = 4, /* as QCOW2_… */
    A_ALIGNED = 8,  /* to clusters */
    A_LARGE = 16,   /* zero, trim, resize: up to 16 times as much */
    A_BEHIND = 32,  /* the snapshot a >> 6 from the end, not the start */
};

struct flat {
    unsigned char *bytes;
    uint64_t size;
};

enum { MAX_SAVED = 12 };

struct session {
    struct sparse *file;
    struct qcow2_options options;
    struct qcow2_disk *disk;
    bool has_bitmaps;
    bool sound;             /* and all below counts */
    struct flat now, saved[MAX_SAVED];
    unsigned nr_saved;
};

/* A raw file that stands behind those that name one. */
const char *session_backing(void);

/* Opens it; without `readonly` a check decides if it is sound. NULL in
 * s->disk: that failed. */
void session_begin(struct session *s, struct sparse *file, bool readonly);

void session_run(struct session *s, const struct command *ops, unsigned nr);

/* Reads all that the disk and its snapshots hold, or the start of much. */
void session_read_all(struct session *s);

/* Closes the disk, looks at what is left, and frees. */
void session_end(struct session *s);

/* Parts of the above: see session-*.c. */
void session_do(struct session *s, const struct command *op);
void session_do_whole(struct session *s, enum operation kind,
                      const struct command *op);
void session_look(struct session *s, unsigned i);
void session_map(struct session *s);
void session_learn(struct session *s);
void session_compare(struct session *s);

/* The operation failed. Nobody promises anything about the content from now
 * on if the file is full; if it is sound there are few other reasons. */
void session_failed(struct session *s, const char *what,
                    const struct qcow2_error *err);

#endif /* SESSION_H */
