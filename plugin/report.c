/* SPDX-License-Identifier: BSD-3-Clause */
/* report.c: errors of the engine, for nbdkit's log. */
#include <config.h>

#include <stdio.h>

#include "plugin.h"

static const struct {
    enum qcow2_hint hint;
    const char *words;
} remedies[] = {
    { QCOW2_HINT_READONLY, "-r serves it read-only" },
    { QCOW2_HINT_NO_LOCK, "lock=off takes no locks, for when nobody else has "
      "it open" },
    { QCOW2_HINT_CHECK, "'qcow2-img check' tells more" },
    { QCOW2_HINT_REPAIR, "'qcow2-img check -r all' repairs it" },
    { QCOW2_HINT_CONVERT, "'qcow2-img convert' copies the disk to a new "
      "image" },
    { QCOW2_HINT_WHICH_SNAPSHOT, "id:ID means the one with that id, name:NAME "
      "the one with that name" },
    { QCOW2_HINT_VERSION_3, "'qcow2-img amend -o compat=1.1' makes it "
      "version 3" },
    { QCOW2_HINT_BACKING, "backing=FILENAME uses another file" },
    { QCOW2_HINT_BACKING_FORMAT, "backing-format=qcow2 or backing-format=raw "
      "says what it is" },
    { QCOW2_HINT_DECLARE_FORMAT, "'qcow2-img rebase -u -b NAME -F FORMAT "
      "IMAGE' declares it in the image above" },
};

void
report_error(const char *before, const struct qcow2_error *err)
{
    char words[1536] = "";
    size_t len = 0;

    if (err->hints & QCOW2_HINT_ALLOW)
        len = snprintf(words, sizeof words, "; allow=%s allows it",
                       err->place[0] ? err->place : "DIRECTORY");
    for (size_t i = 0; i < sizeof remedies / sizeof remedies[0]; i++)
        if (err->hints & remedies[i].hint && len < sizeof words)
            len += snprintf(words + len, sizeof words - len, "; %s",
                            remedies[i].words);
    nbdkit_error("%s%s%s", before, err->text, words);
}
