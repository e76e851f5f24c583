/* SPDX-License-Identifier: BSD-3-Clause */
/* oracle.c: see oracle.h. */
#include "oracle.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "expect.h"
#include "rng.h"
#include "tmpdir.h"

int
oracle_run(const char *fmt, ...)
{
    char command[4096];
    va_list ap;
    int status;

    va_start(ap, fmt);
    vsnprintf(command, sizeof command, fmt, ap);
    va_end(ap);
    status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

bool
oracle_present(void)
{
    static int present = -1;

    if (present < 0) {
        present = oracle_run("{ qemu-img --version && qemu-io --version; } "
                             ">/dev/null 2>&1") == 0;
        if (!present && env_number("REQUIRE_ORACLES", 0))
            fail_msg("qemu-img and qemu-io are required and missing");
    }
    return present;
}

void
oracle_or_skip(void)
{
    if (!oracle_present())
        skip();
}

static long
json_number(const char *text, const char *key)
{
    char quoted[64];
    const char *p;

    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    p = strstr(text, quoted);
    return p ? strtol(p + strlen(quoted), NULL, 10) : 0;
}

/* Of a path, up to the name. Others find data files by the current directory.
 */
static int
directory_length(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? (int)(slash - path) + 1 : 0;
}

void
oracle_check(const char *path, struct oracle_check *c)
{
    char command[2048], text[65536];
    FILE *f;
    size_t n;
    int status;

    snprintf(command, sizeof command,
             "cd '%.*s.' && qemu-img check -f qcow2 --output=json '%s' "
             "2>/dev/null", directory_length(path), path, path);
    f = popen(command, "r");
    EXPECT(f, "cannot run %s", command);
    n = fread(text, 1, sizeof text - 1, f);
    text[n] = '\0';
    status = pclose(f);
    c->exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    c->corruptions = json_number(text, "corruptions");
    c->leaks = json_number(text, "leaks");
    c->check_errors = json_number(text, "check-errors");
}

void
oracle_expect_clean(const char *path)
{
    struct oracle_check c;

    if (!oracle_present())
        return;
    oracle_check(path, &c);
    EXPECT(c.exit_status == 0, "qemu-img check of %s: exit status %d, "
           "%ld corruptions, %ld leaks", path, c.exit_status, c.corruptions,
           c.leaks);
}

void
oracle_expect_content(const char *path, const void *disk, uint64_t nr_bytes)
{
    const char *raw = tmpdir_path("oracle.raw");
    int status;

    if (!oracle_present())
        return;
    tmpdir_write_file(raw, disk, nr_bytes);
    status = oracle_run("cd '%.*s.' && qemu-img compare -f qcow2 -F raw "
                        "'%s' '%s' >/dev/null", directory_length(path), path,
                        path, raw);
    EXPECT(status == 0, "qemu-img compare of %s with the model: %d", path,
           status);
}
