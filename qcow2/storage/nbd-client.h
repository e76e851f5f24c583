/* SPDX-License-Identifier: BSD-3-Clause */
/* nbd-client.h: requests to one export of an NBD server, over connections
 * that are made when they are needed and replaced where that is safe.
 *
 * A connection does one request at a time. Where the server allows several,
 * threads get one each, up to NBD_MAX_CONNECTIONS; others wait. No lock is
 * held while a connection is made or ended, or a request is under way.
 *
 * Everything is limited in time. A server that is too late counts as lost,
 * like one that closes the connection. Then
 *
 *   a read-only export is connected to again, and the request repeated once,
 *   if it is still the same export;
 *   a writable one is lost for good: nobody knows what the server still had
 *   in memory, and the flush of another server, or of the same one started
 *   anew, would say nothing of it (I8).
 */
#ifndef QCOW2_NBD_CLIENT_H
#define QCOW2_NBD_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qcow2.h"

enum {
    NBD_MAX_CONNECTIONS = 8,
    NBD_DEFAULT_TIMEOUT_MS = 30000,
};

/* What the server says of the export, checked. */
struct nbd_export {
    uint64_t size;
    uint32_t block_size;  /* requests must be multiples of it: 1 to 64 KiB */
    uint32_t max_request; /* bytes of one that reads or writes */
    bool can_flush, can_zero, can_fast_zero, can_extents, can_multi_conn;
};

enum nbd_verb { NBD_READ, NBD_WRITE, NBD_FLUSH, NBD_ZERO, NBD_STATUS };

/* An answer to NBD_STATUS: from off on nr pairs of a length in bytes, which
 * may be anything, and flags of base:allocation.
 */
typedef void nbd_status_fn(void *opaque, uint64_t off,
                           const uint32_t *entries, size_t nr);

struct nbd_request {
    enum nbd_verb verb;
    uint64_t off, nr_bytes; /* whole blocks inside the export; any number */
    void *buf;              /* NBD_READ; of NBD_WRITE, which only reads it */
    uint32_t flags;         /* LIBNBD_CMD_FLAG_… */
    nbd_status_fn *status;  /* at most once */
    void *opaque;
};

struct nbd_client;

/* Connects. name is for messages. timeout_ms as in struct qcow2_options, not
 * 0. Looking up a host's name has the limits of the system's resolver.
 */
struct nbd_client *nbd_client_new(const char *uri, const char *name,
                                  bool readonly, unsigned timeout_ms,
                                  struct qcow2_error *err);

/* Ends the connections; waits for the server a second at most. NULL is
 * fine.
 */
void nbd_client_free(struct nbd_client *c);

const struct nbd_export *nbd_client_export(const struct nbd_client *c);

/* Does the request, in parts that the server takes. Errors are ENOSPC,
 * ENOMEM, EPERM, EROFS or ENOTSUP as the server answered, else EIO; EIO too
 * where it did not answer.
 */
int nbd_client_do(struct nbd_client *c, const struct nbd_request *q,
                  struct qcow2_error *err);

/* Does every further request fail, as the export is lost? */
bool nbd_client_is_lost(struct nbd_client *c);

#endif /* QCOW2_NBD_CLIENT_H */
