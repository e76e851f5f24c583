/* SPDX-License-Identifier: BSD-3-Clause */
/* verbs.h: the verbs, each from the file that is named after it. */
#ifndef VERBS_H
#define VERBS_H

#include "tool.h"

extern const struct verb verb_amend;
extern const struct verb verb_bench;
extern const struct verb verb_bitmap;
extern const struct verb verb_chain;
extern const struct verb verb_check;
extern const struct verb verb_commit;
extern const struct verb verb_compare;
extern const struct verb verb_convert;
extern const struct verb verb_create;
extern const struct verb verb_dd;
extern const struct verb verb_info;
extern const struct verb verb_map;
extern const struct verb verb_measure;
extern const struct verb verb_rebase;
extern const struct verb verb_resize;
extern const struct verb verb_snapshot;

#endif /* VERBS_H */
