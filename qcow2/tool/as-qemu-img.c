/* SPDX-License-Identifier: BSD-3-Clause */
/* as-qemu-img.c: what programs read of qemu-img before they use it, for when
 * this program was called by that name.
 */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "tool.h"

#ifndef PACKAGE_STRING
#define PACKAGE_STRING "nbdkit-qcow2"
#endif

/* The version whose command lines are understood: programs choose by it. */
#define QEMU_IMG_VERSION "7.2.0"

bool
called_as_qemu_img(void)
{
    return strcmp(program_invocation_short_name, "qemu-img") == 0;
}

const char *
program_name(void)
{
    return called_as_qemu_img() ? "qemu-img" : "qcow2-img";
}

void
version_print(void)
{
    if (called_as_qemu_img())
        printf("qemu-img version " QEMU_IMG_VERSION " (qcow2-img of %s)\n",
               PACKAGE_STRING);
    else
        printf("qcow2-img (%s)\n", PACKAGE_STRING);
}

/* In small letters: libvirt has looked for "-F fmt". */
static void
print_option(const struct tool_option *o)
{
    if (o->key < 256)
        printf(" [-%c", o->key);
    else
        printf(" [--%s", o->name);
    if (o->arg) {
        putchar(o->key < 256 ? ' ' : '=');
        for (const char *p = o->arg; *p; p++)
            putchar(tolower((unsigned char)*p));
    }
    putchar(']');
}

/* What follows the options, of each usage that the verb has. */
static void
print_operands(const char *text)
{
    static const char options[] = "[OPTION...] ";

    for (const char *between = " "; *text; between = " | ") {
        int len;

        if (strncmp(text, options, strlen(options)) == 0)
            text += strlen(options);
        len = strcspn(text, "\n");
        printf("%s%.*s", between, len, text);
        text += len + (text[len] == '\n');
    }
}

/* Programs look for an option in the line of its verb. */
void
overview_print_as_qemu_img(void)
{
    version_print();
    printf("usage: qemu-img command [command options]\n\n"
           "Command syntax:\n");
    for (const struct verb *const *v = verbs; *v; v++) {
        printf("  %s", (*v)->name);
        for (const struct tool_option *o = (*v)->options; o->key; o++)
            if (o->help)
                print_option(o);
        print_operands((*v)->operands);
        putchar('\n');
    }
    printf("\nSupported formats: qcow2 raw\n");
}
