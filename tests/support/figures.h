/* SPDX-License-Identifier: BSD-3-Clause */
/* figures.h: compares the figures of a check with those of qemu-img check. */
#ifndef FIGURES_H
#define FIGURES_H

#include "qcow2.h"

/* All figures of its JSON. Nothing where qemu-img is missing. */
void figures_expect_same(const char *path,
                         const struct qcow2_check_result *r);

#endif /* FIGURES_H */
