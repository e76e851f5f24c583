/* SPDX-License-Identifier: BSD-3-Clause */
/* undo-file.h: the format of an undo file.
 *
 * A magic, then records: a struct record_head, a payload, and a checksum over
 * both. In this order:
 *
 *   UNDO_BEGIN      file_size: of the image before the repair
 *   UNDO_METADATA   a stretch of its metadata, and a digest of that
 *   UNDO_WRITE      one write; the payload: nr_bytes that it overwrote, then
 *                   nr_bytes that it wrote
 *   UNDO_END        the repair made all of its writes; file_size: after it
 *
 * A record is durable before the write that it is about is made. So one that
 * is cut short, or was never written in full, is of a write that was not
 * made, and so are those that follow it.
 */
#ifndef UNDO_FILE_H
#define UNDO_FILE_H

#include <stddef.h>
#include <stdint.h>

enum undo_kind { UNDO_BEGIN = 1, UNDO_METADATA, UNDO_WRITE, UNDO_END };

/* Numbers are little-endian. */
struct record_head {
    uint64_t kind;
    uint64_t host_off, nr_bytes;
    union {
        uint64_t file_size; /* UNDO_WRITE: before the write */
        uint64_t digest;
    };
};

extern const char undo_magic[8];

/* One record read. */
struct undo_entry {
    struct record_head head;         /* in our byte order */
    const unsigned char *old_bytes, *new_bytes; /* of UNDO_WRITE */
};

/* An undo file, read and found to be in order. */
struct undo_file {
    unsigned char *bytes;
    uint64_t size_before, size_after; /* of the image */
    struct undo_entry *metadata, *writes;
    size_t nr_metadata, nr_writes;
};

/* Adds the bytes of a file at host_off to a digest, which is of all that is
 * not zero, in ascending order. Pieces begin at multiples of 8. */
uint64_t undo_digest(uint64_t digest, uint64_t host_off, const void *bytes,
                     size_t nr_bytes);

/* The checksum of a record. */
uint64_t undo_sum(const struct record_head *head, const void *a,
                  size_t nr_a, const void *b, size_t nr_b);

/* 0, or -1: reported. */
int undo_file_read(const char *path, struct undo_file *f);
void undo_file_free(struct undo_file *f);

/* Reports errno. Returns -1. */
int undo_complain(const char *path, const char *what);

#endif /* UNDO_FILE_H */
