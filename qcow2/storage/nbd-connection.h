/* SPDX-License-Identifier: BSD-3-Clause */
/* nbd-connection.h: one connection to an NBD server, used by one thread at a
 * time. All waiting for the server ends at a deadline.
 */
#ifndef QCOW2_NBD_CONNECTION_H
#define QCOW2_NBD_CONNECTION_H

#include "storage/nbd-client.h"
#include "storage/nbd-library.h"

/* Milliseconds of a clock that never goes back; deadlines are on it. */
uint64_t nbd_clock_ms(void);

/* Where to connect to. */
struct nbd_address {
    struct nbd_library lib;
    char *uri;
    char *name;             /* for messages */
    bool readonly;
    unsigned timeout_ms;
};

/* Connects within the timeout and fills what the server says of the export.
 * EROFS if it may not be written and shall be, ETIMEDOUT, or why not.
 */
struct nbd_handle *nbd_connect(const struct nbd_address *a,
                               struct nbd_export *export,
                               struct qcow2_error *err);

/* Says goodbye, waits until the deadline for the server to close the
 * connection, too, and frees h.
 */
void nbd_disconnect(const struct nbd_address *a, struct nbd_handle *h,
                    uint64_t deadline_ms);

/* Ends what is under way (buffers are not touched any more), and frees h. */
void nbd_abandon(const struct nbd_address *a, struct nbd_handle *h);

enum nbd_outcome {
    NBD_DONE,
    NBD_REFUSED, /* by the server; the connection is as before */
    NBD_LOST,    /* the connection is; to be abandoned */
    NBD_LATE,    /* no answer in time; to be abandoned */
};

/* Does a request, in parts that the server takes. */
enum nbd_outcome nbd_run(const struct nbd_address *a, struct nbd_handle *h,
                         const struct nbd_export *export,
                         const struct nbd_request *q, uint64_t deadline_ms,
                         struct qcow2_error *err);

#endif /* QCOW2_NBD_CONNECTION_H */
