/* SPDX-License-Identifier: BSD-3-Clause */
/* show-snapshots.c: lists of internal snapshots. */
#include <inttypes.h>
#include <time.h>

#include "json.h"
#include "show.h"
#include "tool.h"

enum { NSEC = 1000000000 };

static void
show_snapshot(const struct qcow2_snapshot *s)
{
    CLEANUP_FREE char *id = text_escape(s->id);
    CLEANUP_FREE char *name = text_escape(s->name);
    uint64_t msec = s->vm_clock_nsec / 1000000, sec = msec / 1000;
    char date[32] = "", clock[64], icount[32] = "";
    time_t t = s->date_sec;
    struct tm tm;

    if (localtime_r(&t, &tm))
        strftime(date, sizeof date, "%Y-%m-%d %H:%M:%S", &tm);
    snprintf(clock, sizeof clock, "%02" PRIu64 ":%02u:%02u.%03u",
             sec / 3600, (unsigned)(sec / 60 % 60), (unsigned)(sec % 60),
             (unsigned)(msec % 1000));
    if (s->icount != UINT64_MAX)
        snprintf(icount, sizeof icount, "%" PRIu64, s->icount);
    printf("%-9s %-16s %8s%20s%13s%11s\n", id, name,
           SIZE_TEXT(s->vm_state_size), date, clock, icount);
}

void
show_snapshots(const struct qcow2_snapshot *snapshots, size_t nr)
{
    if (nr == 0)
        return;
    printf("Snapshot list:\n%-9s %-16s %8s%20s%13s%11s\n", "ID", "TAG",
           "VM SIZE", "DATE", "VM CLOCK", "ICOUNT");
    for (size_t i = 0; i < nr; i++)
        show_snapshot(&snapshots[i]);
}

json_t *
show_snapshots_json(const struct qcow2_snapshot *snapshots, size_t nr)
{
    json_t *array = check_memory(json_array());

    for (size_t i = 0; i < nr; i++) {
        const struct qcow2_snapshot *s = &snapshots[i];
        json_t *o = check_memory(json_object());

        json_put(o, "id", json_name(s->id));
        json_put(o, "name", json_name(s->name));
        json_put(o, "vm-state-size", json_bytes(s->vm_state_size));
        json_put(o, "disk-size", json_bytes(s->disk_size));
        json_put(o, "date-sec", json_integer(s->date_sec));
        json_put(o, "date-nsec", json_integer(s->date_nsec));
        json_put(o, "vm-clock-sec", json_integer(s->vm_clock_nsec / NSEC));
        json_put(o, "vm-clock-nsec", json_integer(s->vm_clock_nsec % NSEC));
        if (s->icount != UINT64_MAX)
            json_put(o, "icount", json_bytes(s->icount));
        json_put(array, NULL, o);
    }
    return array;
}
