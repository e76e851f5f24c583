/* SPDX-License-Identifier: BSD-3-Clause */
/* nbd-server.h: an NBD server in threads of the test, which exports any
 * backend: one that fails, or asserts the order of writes. It counts what
 * arrives, can hold requests back and lose connections.
 */
#ifndef NBD_SERVER_H
#define NBD_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "storage/io.h"

/* What it says it can do. */
enum {
    NBD_SERVER_FLUSH = 1,
    NBD_SERVER_MULTI_CONN = 2,
    NBD_SERVER_ZERO = 4,
    NBD_SERVER_ALL = 7,
    NBD_SERVER_BLOCKS = 8, /* takes whole blocks of 4096 bytes alone */
    NBD_SERVER_SILENT = 16, /* accepts connections and says nothing */
};

/* Commands, by their numbers in the protocol. */
enum nbd_command {
    NBD_READ = 0, NBD_WRITE = 1, NBD_DISC = 2, NBD_FLUSH = 3, NBD_TRIM = 4,
    NBD_WRITE_ZEROES = 6, NBD_NR_COMMANDS
};

struct nbd_server;

/* Listens on a socket in the temporary directory, and takes over io. One
 * that listened there before goes on with the connections it has. */
struct nbd_server *nbd_server_start(struct io *io, unsigned can);

/* Ends all connections. NULL is fine. */
void nbd_server_stop(struct nbd_server *s);

/* Until the next call. */
const char *nbd_server_uri(void);

/* Requests so far, and connections. */
unsigned nbd_server_count(struct nbd_server *s, enum nbd_command command);
unsigned nbd_server_connections(struct nbd_server *s);

/* What it says its size is, to connections that come from now on. Requests
 * past the end of what it exports fail. */
void nbd_server_claim_size(struct nbd_server *s, uint64_t size);

/* Connections that come from now on get no word. */
void nbd_server_fall_silent(struct nbd_server *s);
void nbd_server_wait_connections(struct nbd_server *s, unsigned nr);

/* Zeroing that the server may do by making a hole. */
unsigned nbd_server_holes(struct nbd_server *s);

/* The next request of this kind is held back, undone, until it is answered or
 * its connection lost; waits until it is there. */
void nbd_server_hold(struct nbd_server *s, enum nbd_command command);
void nbd_server_wait_held(struct nbd_server *s);
void nbd_server_lose_held(struct nbd_server *s);
void nbd_server_answer_held(struct nbd_server *s);

/* The connection of the next request of this kind is lost: before it is
 * done; or if it reads, in the middle of the answer. */
void nbd_server_lose_next(struct nbd_server *s, enum nbd_command command);

#endif /* NBD_SERVER_H */
