/* SPDX-License-Identifier: BSD-3-Clause */
/* failures.h: the files of which a flush has failed in this process, and the
 * first that could not be locked.
 *
 * After a failed flush the kernel may count pages as clean that it could not
 * write: the file reads as if they were on the disk, and the next flush
 * succeeds without them. So such a file takes no more writes, however
 * often it is opened, and is read anew only from the disk (io_drop_cache).
 */
#ifndef QCOW2_FAILURES_H
#define QCOW2_FAILURES_H

#include "qcow2.h"
#include "storage/io.h"

/* A place for the record of one open file, so that recording cannot fail. */
struct failure;

/* To be called for every file that was opened, before its first read, and
 * once. If a flush of the file failed before, what the page cache holds of it
 * is dropped (unless the handle whose flush failed is still open, which then
 * drops it when it closes), and a writable io is refused with EIO. Otherwise
 * a flush of io that fails will be recorded. failures may be NULL: then
 * nothing is known and nothing recorded. It must outlive io. ENOMEM.
 * Thread-safe.
 */
int failures_watch(struct qcow2_failures *failures, struct io *io,
                   struct qcow2_error *err);

/* The part of failures_watch that needs no record: reports that the file
 * system of io keeps no locks (qcow2_failures_report_unlocked). Thread-safe.
 */
void failures_note_locks(struct qcow2_failures *failures,
                         const struct io *io);

/* For io.c: a flush of io failed; io is being closed. */
void failures_record(struct io *io);
void failures_closing(struct io *io);

#endif /* QCOW2_FAILURES_H */
