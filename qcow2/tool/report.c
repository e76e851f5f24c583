/* SPDX-License-Identifier: BSD-3-Clause */
/* report.c: messages on stderr. */
#include <stdarg.h>
#include <string.h>

#include "tool.h"

/* Harmless on a terminal, whatever was not escaped before. */
void
report_text(const char *fmt, va_list ap)
{
    CLEANUP_FREE char *safe = NULL;
    char *text = NULL;

    if (vasprintf(&text, fmt, ap) == -1)
        check_memory(NULL);
    safe = text_without_controls(text);
    free(text);
    fputs(safe, stderr);
}

static void
message(const char *kind, const char *fmt, va_list ap)
{
    fflush(stdout);
    fprintf(stderr, "%s: %s", program_name(), kind);
    report_text(fmt, ap);
    fputc('\n', stderr);
}

void
report(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    message("", fmt, ap);
    va_end(ap);
}

void
report_warning(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    message("warning: ", fmt, ap);
    va_end(ap);
}

void
report_engine_warning(void *opaque, const char *text)
{
    (void)opaque;
    report_warning("%s", text);
}

/* A remedy in the words of this program. option: the verb must have it for
 * the remedy to be one; 0: another verb does it.
 */
static const struct {
    enum qcow2_hint hint;
    int option;
    const char *words;
} remedies[] = {
    { QCOW2_HINT_NO_LOCK, 'U', "-U takes no locks, for when nobody else has "
      "it open" },
    { QCOW2_HINT_SHRINK, KEY_SHRINK, "--shrink allows it" },
    { QCOW2_HINT_SHRINK, KEY_FORCE, "--force allows it" },
    { QCOW2_HINT_MUCH, KEY_FORCE, "--force allows it" },
    { QCOW2_HINT_CHECK, 0, "'qcow2-img check' tells more" },
    { QCOW2_HINT_REPAIR, 0, "'qcow2-img check -r all' repairs it" },
    { QCOW2_HINT_CONVERT, 0, "'qcow2-img convert' copies the disk to a new "
      "image" },
    { QCOW2_HINT_SNAPSHOTS, KEY_KEEP_SNAPSHOTS, "--keep-snapshots copies into "
      "the image what they need first, --change-snapshots accepts it" },
    { QCOW2_HINT_WHICH_SNAPSHOT, 0, "snapshot.id=ID means the one with that "
      "id, snapshot.name=NAME the one with that name" },
    { QCOW2_HINT_VERSION_3, 0, "'qcow2-img amend -o compat=1.1' makes it "
      "version 3" },
    { QCOW2_HINT_BACKING, KEY_BACKING, "--source-backing=FILE uses another "
      "file" },
    { QCOW2_HINT_BACKING_FORMAT, KEY_BACKING_FORMAT,
      "--source-backing-format=qcow2 or --source-backing-format=raw says what "
      "it is" },
    { QCOW2_HINT_DECLARE_FORMAT, 0, "'qcow2-img rebase -u -b NAME -F FORMAT "
      "IMAGE' declares it in the image above" },
};

static void
print_remedies(const struct qcow2_error *err)
{
    const char *place = err->place[0] ? err->place : "DIR";
    unsigned wanted = err->hints;

    if (wanted & QCOW2_HINT_ALLOW && args_accept(KEY_ALLOW))
        fprintf(stderr, "; --allow=%s allows it, QCOW2_ALLOW=%s in the "
                "environment always", place, place);
    for (size_t i = 0; i < sizeof remedies / sizeof remedies[0]; i++)
        if (wanted & remedies[i].hint
            && (remedies[i].option == 0 || args_accept(remedies[i].option)))
            fprintf(stderr, "; %s", remedies[i].words);
}

int
set_error(struct qcow2_error *err, int errnum, const char *fmt, ...)
{
    va_list ap;

    *err = (struct qcow2_error){ .errnum = errnum };
    va_start(ap, fmt);
    vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    return -1;
}

int
report_error(const struct qcow2_error *err)
{
    CLEANUP_FREE char *text = text_without_controls(err->text);

    fflush(stdout);
    fprintf(stderr, "%s: %s", program_name(), text);
    print_remedies(err);
    fputc('\n', stderr);
    return EXIT_FAILURE;
}

void *
check_memory(void *p)
{
    if (!p) {
        report("out of memory");
        exit(EXIT_FAILURE);
    }
    return p;
}
