/* SPDX-License-Identifier: BSD-3-Clause */
/* snapshot-word.c: which internal snapshot a word of the user means. */
#include "format/snapshot-word.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base/error.h"
#include "base/escape.h"

static const char id_prefix[] = "snapshot.id=";
static const char name_prefix[] = "snapshot.name=";
static const char between[] = ",snapshot.name=";

/* NULL: any will do. */
struct wanted {
    const char *either; /* an id or a name */
    const char *id;     /* its first id_len bytes */
    size_t id_len;
    const char *name;
};

static struct wanted
parse(const char *word)
{
    struct wanted w = { .either = NULL };
    const char *second;

    if (strncmp(word, name_prefix, strlen(name_prefix)) == 0) {
        w.name = word + strlen(name_prefix);
    } else if (strncmp(word, id_prefix, strlen(id_prefix)) == 0) {
        w.id = word + strlen(id_prefix);
        second = strstr(w.id, between);
        w.id_len = second ? (size_t)(second - w.id) : strlen(w.id);
        if (second)
            w.name = second + strlen(between);
    } else {
        w.either = word;
    }
    return w;
}

static bool
is_wanted(const struct wanted *w, const struct snapshot_label *s)
{
    if (w->either)
        return strcmp(s->id, w->either) == 0
               || strcmp(s->name, w->either) == 0;
    return (!w->id || (strlen(s->id) == w->id_len
                       && memcmp(s->id, w->id, w->id_len) == 0))
           && (!w->name || strcmp(s->name, w->name) == 0);
}

/* first and second are both meant. */
static long
report_several(const char *word, const struct snapshot_label *first,
               const struct snapshot_label *second, struct qcow2_error *err)
{
    error_set(err, EINVAL, "more than one snapshot is meant by '%s': that "
              "with the id '%s' and the name '%s', and that with the id '%s' "
              "and the name '%s'", ESCAPED(word), ESCAPED(first->id),
              ESCAPED(first->name), ESCAPED(second->id),
              ESCAPED(second->name));
    return error_hint(err, QCOW2_HINT_WHICH_SNAPSHOT);
}

/* There may be one with the name for an id, and the other way round. */
static long
report_none(const char *word, const struct wanted *w, const void *list,
            size_t nr, snapshot_label_fn *label, struct qcow2_error *err)
{
    const char *value = w->id ? w->id : w->name;

    error_set(err, ENOENT, "there is no snapshot with the %s '%s'",
              w->either ? "name or id" : w->id && w->name ? "id and name"
              : w->id ? "id" : "name",
              ESCAPED(w->either || (w->id && w->name) ? word : value));
    for (size_t i = 0; !w->either && i < nr; i++) {
        struct snapshot_label s = label(list, i);

        if (strcmp(s.id, value) == 0 || strcmp(s.name, value) == 0)
            return error_hint(err, QCOW2_HINT_WHICH_SNAPSHOT);
    }
    return -1;
}

long
snapshot_word_find(const char *word, const void *list, size_t nr,
                   snapshot_label_fn *label, struct qcow2_error *err)
{
    struct wanted w = parse(word);
    struct snapshot_label first = { NULL, NULL };
    long found = -1;

    for (size_t i = 0; i < nr; i++) {
        struct snapshot_label s = label(list, i);

        if (!is_wanted(&w, &s))
            continue;
        if (found >= 0)
            return report_several(word, &first, &s, err);
        first = s;
        found = i;
    }
    return found >= 0 ? found : report_none(word, &w, list, nr, label, err);
}
