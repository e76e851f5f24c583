/* SPDX-License-Identifier: BSD-3-Clause */
/* history.c: see history.h. */
#include "history.h"

#include <stdlib.h>

#include "audit.h"
#include "expect.h"
#include "states.h"

/* What is written over all of the disk at the end. */
enum { LAST_CONTENT = 4711 };

static struct phase *
add_phase(struct history *h, const struct contents *c)
{
    struct phase *p;

    h->phases = realloc(h->phases, (h->nr + 1) * sizeof *h->phases);
    if (!h->phases)
        abort();
    p = &h->phases[h->nr++];
    memset(p, 0, sizeof *p);
    contents_copy(&p->holds, c);
    return p;
}

void
history_begin(struct history *h, const struct contents *c)
{
    memset(h, 0, sizeof *h);
    add_phase(h, c);
}

void
history_free(struct history *h)
{
    for (unsigned i = 0; i < h->nr; i++)
        contents_free(&h->phases[i].holds);
    free(h->phases);
    memset(h, 0, sizeof *h);
}

struct phase *
history_last(struct history *h)
{
    return &h->phases[h->nr - 1];
}

void
history_request(struct history *h, const struct contents *after,
                uint64_t sent)
{
    unsigned epoch = history_last(h)->epoch;
    struct phase *p = add_phase(h, after);

    p->epoch = epoch;
    p->sent = sent;
    p->answered = UINT64_MAX;
}

void
history_whole(struct history *h, const struct contents *after, uint64_t sent)
{
    history_request(h, after, sent);
    history_last(h)->epoch++;
}

void
history_durable(struct history *h, uint64_t answered)
{
    for (unsigned i = 0; i < h->nr; i++)
        if (h->phases[i].answered == UINT64_MAX)
            h->phases[i].answered = answered;
}

/* Is each sector that of one of these phases? */
static const char *
sectors_differ(const struct phase *first, const struct phase *end,
               const struct contents *got)
{
    static char text[80];

    for (uint64_t off = 0; off < got->size; off += 512) {
        size_t n = got->size - off < 512 ? got->size - off : 512;
        const struct phase *p = first;

        while (p < end
               && memcmp(p->holds.disk + off, got->disk + off, n) != 0)
            p++;
        if (p == end) {
            snprintf(text, sizeof text, "the disk at 0x%llx",
                     (unsigned long long)off);
            return text;
        }
    }
    return NULL;
}

const char *
history_forbids(const struct history *h, const struct contents *got,
                uint64_t moment)
{
    static char text[400];
    const struct phase *p = h->phases, *end = p + h->nr;
    size_t len = 0;

    while (end - p > 1 && end[-1].sent > moment)
        end--;
    for (const struct phase *q = p; q < end; q++)
        if (q->answered <= moment)
            p = q;
    while (p < end) {
        const struct phase *next = p;
        const char *why;

        while (next < end && next->epoch == p->epoch)
            next++;
        why = contents_differ_in_saved(got, &p->holds);
        if (!why)
            why = sectors_differ(p, next, got);
        if (!why)
            return NULL;
        len += snprintf(text + len, sizeof text - len, "%sneither phase %u "
                        "(%s)", len ? "; " : "", (unsigned)(p - h->phases),
                        why);
        if (len >= sizeof text)
            break;
        p = next;
    }
    return text;
}

static struct audit
audit_mem(struct mem *m)
{
    uint64_t nr_bytes;
    const unsigned char *bytes = mem_bytes(m, &nr_bytes);
    struct audit a;

    audit_image(bytes, nr_bytes, &a);
    return a;
}

static void
check_bytes(struct mem *m, unsigned version, const struct audit *a,
            struct aftermath *sum)
{
    bool flags_may_be_wrong = a->dirty || version == 2;

    EXPECT(a->nr_corruptions == audit_nr_mendable(a) && !a->corrupt,
           "%u corruptions: %s", a->nr_corruptions - audit_nr_mendable(a),
           a->first);
    EXPECT(flags_may_be_wrong || a->nr_miscopied + a->nr_uncopied == 0,
           "%u COPIED flags are wrong, and the image is not dirty: %s",
           a->nr_miscopied + a->nr_uncopied, a->first);
    sum->nr_states++;
    sum->nr_dirty += a->dirty;
    sum->nr_leaky += a->nr_leaks > 0;
    sum->nr_miscopied += a->nr_miscopied + a->nr_uncopied > 0;
    if (a->nr_leaks > sum->max_leaks)
        sum->max_leaks = a->nr_leaks;
    states_ask_qemu(m, a->dirty, flags_may_be_wrong);
}

/* The open has settled what the dirty bit covered. */
static void
check_settled(struct mem *m, const struct audit *before)
{
    struct audit a = audit_mem(m);

    if (before->dirty)
        EXPECT(audit_is_clean(&a), "not settled: %u corruptions (%s), %u "
               "without COPIED, %u leaks%s", a.nr_corruptions, a.first,
               a.nr_uncopied, a.nr_leaks, a.dirty ? ", dirty" : "");
    else
        EXPECT(a.nr_leaks <= before->nr_leaks, "%u leaks became %u",
               before->nr_leaks, a.nr_leaks);
}

static void
do_whole(struct qcow2_disk *disk, struct contents *c,
         const struct whole_op *op)
{
    struct qcow2_error err;

    EXPECT_OK(whole_run(disk, c, op, &err), &err);
    whole_model(c, op);
}

/* Two owners of one cluster show when one of them writes; what was not
 * freed or counted, when all is. */
static void
exercise(struct qcow2_disk *disk, struct contents *c, unsigned version)
{
    struct whole_op create = { .kind = WHOLE_CREATE, .number = 99 };
    struct whole_op grow = { .kind = WHOLE_RESIZE, .size = c->size + 3000 };
    struct whole_op del = { .kind = WHOLE_DELETE, .i = 0 };
    struct qcow2_error err;

    pattern_fill(c->disk, c->size, LAST_CONTENT, 0);
    EXPECT_OK(qcow2_pwrite(disk, c->disk, c->size, 0, 0, &err), &err);
    EXPECT_OK(qcow2_flush(disk, &err), &err);
    contents_expect(disk, c);
    do_whole(disk, c, &create);
    while (c->nr > 1)
        do_whole(disk, c, &del);
    if (version > 2)
        do_whole(disk, c, &grow);
    contents_expect(disk, c);
}

/* Reading does not need the repair. */
static void
check_readonly(const struct history *h, struct rig *r, struct mem *m,
               uint64_t moment)
{
    struct qcow2_disk *disk;
    struct qcow2_error err;
    struct contents got;
    const char *why;

    r->options.readonly = true;
    disk = rig_open_disk(r, io_mem_open(m, true));
    r->options.readonly = false;
    contents_read(&got, disk);
    why = history_forbids(h, &got, moment);
    EXPECT(!why, "read-only: %s", why);
    contents_free(&got);
    EXPECT_OK(qcow2_close(disk, &err), &err);
}

void
history_check(const struct history *h, struct rig *r, struct mem *m,
              uint64_t moment, struct aftermath *sum)
{
    unsigned version = rig_version(m);
    struct audit before = audit_mem(m), after;
    struct qcow2_disk *disk;
    struct qcow2_error err;
    struct contents got;
    const char *why;

    check_bytes(m, version, &before, sum);
    if (before.dirty && sum->nr_states % 4 == 0)
        check_readonly(h, r, m, moment);
    disk = rig_open_disk(r, io_mem_open(m, false));
    contents_read(&got, disk);
    why = history_forbids(h, &got, moment);
    EXPECT(!why, "%s", why);
    check_settled(m, &before);
    exercise(disk, &got, version);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    after = audit_mem(m);
    EXPECT(after.nr_corruptions + after.nr_uncopied == 0 && !after.dirty
           && !after.corrupt, "used: %u corruptions (%s), %u without COPIED",
           after.nr_corruptions, after.first, after.nr_uncopied);
    EXPECT(after.nr_leaks <= (before.dirty ? 0 : before.nr_leaks),
           "used: %u leaks became %u", before.nr_leaks, after.nr_leaks);
    contents_free(&got);
}

void
aftermath_report(const struct aftermath *sum, const char *name)
{
    print_message("%s: %llu states, %llu dirty, %llu with leaks (at most "
                  "%u), %llu with wrong COPIED flags\n", name,
                  (unsigned long long)sum->nr_states,
                  (unsigned long long)sum->nr_dirty,
                  (unsigned long long)sum->nr_leaky, sum->max_leaks,
                  (unsigned long long)sum->nr_miscopied);
}
