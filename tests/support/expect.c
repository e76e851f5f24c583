/* SPDX-License-Identifier: BSD-3-Clause */
/* expect.c: see expect.h. */
#include "expect.h"

#include <stdlib.h>

/* Tests are single programs with one thread that asserts. */
static char current_case[512], current_step[512];

void
expect_case(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(current_case, sizeof current_case, fmt, ap);
    va_end(ap);
    current_step[0] = '\0';
}

void
expect_step(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(current_step, sizeof current_step, fmt, ap);
    va_end(ap);
}

_Noreturn void
expect_failed(const char *file, int line, const char *what,
              const char *fmt, ...)
{
    char text[2048];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    print_error("%s: %s\n", what, text);
    if (current_case[0])
        print_error("in case: %s\n", current_case);
    if (current_step[0])
        print_error("at step: %s\n", current_step);
    _fail(file, line);
    abort();
}

void
expect_same(const char *what, const void *got, const void *want,
            size_t nr_bytes, uint64_t off)
{
    const unsigned char *g = got, *w = want;
    size_t i, last;

    if (memcmp(got, want, nr_bytes) == 0)
        return;
    for (i = 0; g[i] == w[i]; i++)
        ;
    for (last = nr_bytes - 1; g[last] == w[last]; last--)
        ;
    expect_failed(__FILE__, __LINE__, what,
                  "bytes differ between 0x%llx and 0x%llx: first is 0x%02x, "
                  "should be 0x%02x", (unsigned long long)(off + i),
                  (unsigned long long)(off + last + 1), g[i], w[i]);
}
