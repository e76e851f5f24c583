/* SPDX-License-Identifier: BSD-3-Clause */
/* show-snapshots.c: lists of internal snapshots. */
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "json.h"
#include "show.h"
#include "tool.h"

enum { NSEC = 1000000000 };

/* The columns behind the name, each right-aligned. */
enum { SIZE, DATE, CLOCK, ICOUNT, NR_COLUMNS };

struct row {
    char text[NR_COLUMNS][TEXT_SIZE];
};

static void
make_row(const struct qcow2_snapshot *s, struct row *row)
{
    uint64_t msec = s->vm_clock_nsec / 1000000, sec = msec / 1000;
    time_t t = s->date_sec;
    struct tm tm;

    *row = (struct row){ .text = { "" } };
    text_size(row->text[SIZE], s->vm_state_size);
    if (localtime_r(&t, &tm))
        strftime(row->text[DATE], TEXT_SIZE, "%Y-%m-%d %H:%M:%S", &tm);
    snprintf(row->text[CLOCK], TEXT_SIZE, "%02" PRIu64 ":%02u:%02u.%03u",
             sec / 3600, (unsigned)(sec / 60 % 60), (unsigned)(sec % 60),
             (unsigned)(msec % 1000));
    if (s->icount != UINT64_MAX)
        snprintf(row->text[ICOUNT], TEXT_SIZE, "%" PRIu64, s->icount);
}

static void
show_row(const char *id, const char *name, const struct row *row,
         const int widths[NR_COLUMNS])
{
    printf("%-9s %-16s ", id, name);
    for (int i = 0; i < NR_COLUMNS; i++)
        printf("%*s", widths[i], row->text[i]);
    putchar('\n');
}

void
show_snapshots(const struct qcow2_snapshot *snapshots, size_t nr)
{
    static const struct row titles = {
        { "VM SIZE", "DATE", "VM CLOCK", "ICOUNT" },
    };
    /* As qemu-img has them, and more if something would not be apart from
     * what is before it. */
    int widths[NR_COLUMNS] = { 8, 20, 13, 11 };
    struct row row;

    if (nr == 0)
        return;
    for (size_t i = 0; i < nr; i++) {
        make_row(&snapshots[i], &row);
        for (int n = 0; n < NR_COLUMNS; n++)
            if ((int)strlen(row.text[n]) + (n > 0) > widths[n])
                widths[n] = strlen(row.text[n]) + (n > 0);
    }
    printf("Snapshot list:\n");
    show_row("ID", "TAG", &titles, widths);
    for (size_t i = 0; i < nr; i++) {
        CLEANUP_FREE char *id = text_escape(snapshots[i].id);
        CLEANUP_FREE char *name = text_escape(snapshots[i].name);

        make_row(&snapshots[i], &row);
        show_row(id, name, &row, widths);
    }
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
