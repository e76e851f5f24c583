/* SPDX-License-Identifier: BSD-3-Clause */
/* chain-dir.h: the images of a directory, and which is whose backing file. */
#ifndef CHAIN_DIR_H
#define CHAIN_DIR_H

#include <stdbool.h>

/* Prints them. Returns an exit status. */
int chain_dir_show(const char *dir, bool no_lock, bool json);

#endif /* CHAIN_DIR_H */
