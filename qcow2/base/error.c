/* SPDX-License-Identifier: BSD-3-Clause */
/* error.c: fills struct qcow2_error; see error.h. */
#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/escape.h"

/* Paths come from the command line, and names from images: a text is harmless
 * on a terminal whichever of them the caller forgot to escape.
 */
static void
set_text(struct qcow2_error *err, const char *fmt, va_list ap)
{
    if (vsnprintf(err->text, sizeof err->text, fmt, ap) < 0)
        err->text[0] = '\0';
    escape_controls(err->text, sizeof err->text);
}

int
error_set(struct qcow2_error *err, int errnum, const char *fmt, ...)
{
    va_list ap;

    if (!err)
        return -1;
    err->errnum = errnum;
    err->hints = 0;
    err->place[0] = '\0';
    va_start(ap, fmt);
    set_text(err, fmt, ap);
    va_end(ap);
    return -1;
}

int
error_set_errno(struct qcow2_error *err, int errnum, const char *fmt, ...)
{
    va_list ap;
    size_t len;

    if (!err)
        return -1;
    err->errnum = errnum;
    err->hints = 0;
    err->place[0] = '\0';
    va_start(ap, fmt);
    set_text(err, fmt, ap);
    va_end(ap);
    len = strlen(err->text);
    snprintf(err->text + len, sizeof err->text - len, ": %s",
             strerror(errnum)); /* thread-safe in the C libraries we know */
    return -1;
}

int
error_prefix(struct qcow2_error *err, const char *fmt, ...)
{
    char old[sizeof err->text];
    va_list ap;
    size_t len;

    if (!err)
        return -1;
    memcpy(old, err->text, sizeof old);
    va_start(ap, fmt);
    set_text(err, fmt, ap);
    va_end(ap);
    len = strlen(err->text);
    /* A text that no longer fits is cut at its end: the context stays. */
    snprintf(err->text + len, sizeof err->text - len, ": %.*s",
             (int)sizeof old, old);
    return -1;
}

int
error_hint(struct qcow2_error *err, unsigned hints)
{
    if (err)
        err->hints |= hints;
    return -1;
}

int
error_hint_place(struct qcow2_error *err, const char *place)
{
    if (err && !escape_for_shell(err->place, sizeof err->place, place))
        err->place[0] = '\0';
    return error_hint(err, QCOW2_HINT_ALLOW);
}

int
error_nomem(struct qcow2_error *err)
{
    return error_set(err, ENOMEM, "out of memory");
}

bool
error_is_no_space(const struct qcow2_error *err)
{
    return err->errnum == ENOSPC || err->errnum == EDQUOT;
}
