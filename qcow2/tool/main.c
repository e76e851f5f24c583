/* SPDX-License-Identifier: BSD-3-Clause */
/* main.c: qcow2-img, which does everything to whole images; finds the verb
 * and prints help.
 */
#include <locale.h>
#include <string.h>

#include "tool.h"
#include "verbs.h"

const struct verb *const verbs[] = {
    &verb_amend,
    &verb_bench,
    &verb_bitmap,
    &verb_chain,
    &verb_check,
    &verb_commit,
    &verb_compare,
    &verb_convert,
    &verb_create,
    &verb_dd,
    &verb_info,
    &verb_map,
    &verb_measure,
    &verb_rebase,
    &verb_resize,
    &verb_snapshot,
    NULL,
};

/* Words of text, indented and broken into lines. `used` columns of the
 * first line are taken.
 */
static void
print_wrapped(const char *text, int indent, int used)
{
    enum { WIDTH = 78 };

    if (used > 0 && used >= indent)
        printf("\n%*s", indent, "");
    else
        printf("%*s", indent - used, "");
    used = indent;
    while (*text) {
        int len = strcspn(text, " ");

        if (used > indent && used + 1 + len > WIDTH) {
            printf("\n%*s", indent, "");
            used = indent;
        }
        used += printf("%s%.*s", used > indent ? " " : "", len, text);
        text += len + strspn(text + len, " ");
    }
    putchar('\n');
}

static void
print_option(const struct tool_option *o)
{
    int used;

    if (o->key < 256)
        used = printf("  -%c%s", o->key, o->name ? ", " : "");
    else
        used = printf("      ");
    if (o->name)
        used += printf("--%s", o->name);
    if (o->arg)
        used += printf("%c%s", o->name ? '=' : ' ', o->arg);
    print_wrapped(o->help, 28, used);
}

/* Lines of text after an indent. */
static void
print_indented(const char *prefix, const char *text)
{
    while (*text) {
        int len = strcspn(text, "\n");

        printf("%s%.*s\n", prefix, len, text);
        text += len + (text[len] == '\n');
    }
}

void
help_print(const struct verb *verb)
{
    char prefix[64];

    snprintf(prefix, sizeof prefix, "    qcow2-img %s ", verb->name);
    printf("Usage:\n");
    print_indented(prefix, verb->operands);
    putchar('\n');
    print_wrapped(verb->summary, 0, 0);
    putchar('\n');
    for (const struct tool_option *o = verb->options; o->key; o++)
        if (o->help)
            print_option(o);
    print_option(&(struct tool_option){ 'h', "help", NULL,
                                        "print this help" });
    if (verb->notes) {
        putchar('\n');
        print_wrapped(verb->notes, 0, 0);
    }
    printf("\nExample:\n");
    print_indented("    ", verb->example);
}

static void
print_overview(void)
{
    printf("usage: qcow2-img VERB [OPTION...] ...\n"
           "       qcow2-img VERB --help\n"
           "       qcow2-img --version\n"
           "\n"
           "Makes, shows, changes and copies disk images in qcow2 and raw "
           "format.\n\n");
    for (const struct verb *const *v = verbs; *v; v++)
        print_wrapped((*v)->summary, 14, printf("  %s", (*v)->name));
    printf("\nThe manual page qcow2-img(1) tells more.\n");
}

/* Reports if there is none. */
static const struct verb *
find_verb(const char *name)
{
    CLEANUP_FREE char *escaped = NULL;

    for (const struct verb *const *v = verbs; *v; v++)
        if (strcmp((*v)->name, name) == 0)
            return *v;
    escaped = text_escape(name);
    for (const struct verb *const *v = verbs; *v; v++)
        if (text_is_close((*v)->name, name)) {
            report("there is no verb '%s'; did you mean %s?", escaped,
                   (*v)->name);
            return NULL;
        }
    report("there is no verb '%s'; '%s --help' lists them", escaped,
           program_name());
    return NULL;
}

static int
help(const char *name)
{
    const struct verb *verb = name ? find_verb(name) : NULL;

    if (verb)
        help_print(verb);
    else if (!name && called_as_qemu_img())
        overview_print_as_qemu_img();
    else if (!name)
        print_overview();
    return verb || !name ? EXIT_SUCCESS : EXIT_FAILURE;
}

struct qcow2_failures *failures;
struct qcow2_allow_list always_allowed;

/* Mistakes there are no reason to do nothing: less is allowed then. */
static void
find_always_allowed(void)
{
    const char *text = secure_getenv("QCOW2_ALLOW");
    struct qcow2_error err;

    if (text && qcow2_allow_list_add(&always_allowed, text, &err) == -1)
        report_warning("QCOW2_ALLOW: ignored: %s", err.text);
    if (qcow2_allow_list_read(&always_allowed, QCOW2_ALLOW_FILE, &err) == -1)
        report_warning("ignored: %s", err.text);
}

static void
warn_of_no_locks(void *opaque, const char *name)
{
    (void)opaque;
    report_warning("%s: its file system keeps no locks, so nothing keeps other "
                   "programs from using it at the same time", name);
}

static int
run(int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : "";
    const struct verb *verb;

    if (!*word) {
        report("say what to do; '%s --help' lists the verbs",
               program_name());
        return EXIT_FAILURE;
    }
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
        return help(NULL);
    if (strcmp(word, "help") == 0)
        return help(argv[2]);
    if (strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0) {
        version_print();
        return EXIT_SUCCESS;
    }
    verb = find_verb(word);
    if (verb)
        find_always_allowed();
    return verb ? verb->run(verb, argc - 1, argv + 1) : EXIT_FAILURE;
}

int
main(int argc, char **argv)
{
    int status;

    setlocale(LC_CTYPE, "");
    progress_init();
    failures = check_memory(qcow2_failures_new(NULL));
    qcow2_failures_report_unlocked(failures, warn_of_no_locks, NULL);
    status = run(argc, argv);
    qcow2_failures_free(failures);
    qcow2_allow_list_free(&always_allowed);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        report("cannot write the output");
        status = EXIT_FAILURE;
    }
    if (status != EXIT_SUCCESS)
        progress_die_if_interrupted();
    return status;
}
