/* SPDX-License-Identifier: BSD-3-Clause */
/* oracle.h: asks the other implementation, qemu-img and qemu-io.
 *
 * Where they are not installed tests go on without; with REQUIRE_ORACLES=1
 * that is a failure.
 */
#ifndef ORACLE_H
#define ORACLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool oracle_present(void);

/* Skips the cmocka test that calls it when they are missing. */
void oracle_or_skip(void);

/* qemu-img check. */
struct oracle_check {
    int exit_status;    /* 0 clean, 2 corruptions, 3 leaks */
    long corruptions, leaks, check_errors;
};
void oracle_check(const char *path, struct oracle_check *c);

/* No corruption, no leak. Nothing where the oracle is missing. */
void oracle_expect_clean(const char *path);

/* A qcow2 image, with its backing files, reads as disk[0, nr_bytes).
 * Nothing where the oracle is missing. */
void oracle_expect_content(const char *path, const void *disk,
                           uint64_t nr_bytes);

/* Runs a shell command; its exit status. */
int oracle_run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif /* ORACLE_H */
