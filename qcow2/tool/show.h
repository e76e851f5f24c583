/* SPDX-License-Identifier: BSD-3-Clause */
/* show.h: what several verbs print of images. */
#ifndef SHOW_H
#define SHOW_H

#include <jansson.h>

#include "qcow2.h"

/* One image, without the layers below it. */
void show_info(const struct qcow2_info *info, bool verdict);
json_t *show_info_json(const struct qcow2_info *info);

/* The table of snapshots; nothing if there are none. */
void show_snapshots(const struct qcow2_snapshot *snapshots, size_t nr);
json_t *show_snapshots_json(const struct qcow2_snapshot *snapshots,
                            size_t nr);

#endif /* SHOW_H */
