/* SPDX-License-Identifier: BSD-3-Clause */
/* args.c: command lines, as a verb's table of options describes them. */
#include <getopt.h>
#include <stdarg.h>
#include <string.h>

#include "tool.h"

void
usage_error(const struct verb *verb, const char *fmt, ...)
{
    va_list ap;

    fprintf(stderr, "%s: %s: ", program_name(), verb->name);
    va_start(ap, fmt);
    report_text(fmt, ap);
    va_end(ap);
    fprintf(stderr, "\nTry '%s %s --help'.\n", program_name(), verb->name);
    exit(verb->cannot_open ? verb->cannot_open : EXIT_FAILURE);
}

static const struct verb *current_verb;
static bool withdrawn[NR_KEYS];

bool
args_accept(int key)
{
    const struct tool_option *o = current_verb ? current_verb->options : NULL;

    while (o && o->key && o->key != key)
        o++;
    return o && o->key && !withdrawn[key];
}

void
args_withdraw(int key)
{
    withdrawn[key] = true;
}

void
args_start(struct args *a, const struct verb *verb, int argc, char **argv)
{
    size_t nr = 0, nr_longs = 0;
    char *p;

    current_verb = verb;
    while (verb->options[nr].key)
        nr++;
    *a = (struct args){ .verb = verb, .argc = argc, .argv = argv };
    a->letters = p = check_memory(malloc(2 * nr + 3));
    a->longs = check_memory(calloc(nr + 2, sizeof *a->longs));
    *p++ = ':'; /* we tell what is wrong */
    for (size_t i = 0; i < nr; i++) {
        const struct tool_option *o = &verb->options[i];

        if (o->key < 256) {
            *p++ = o->key;
            if (o->arg)
                *p++ = ':';
        }
        if (o->name)
            a->longs[nr_longs++] = (struct option){
                o->name, o->arg ? required_argument : no_argument, NULL,
                o->key,
            };
    }
    *p++ = 'h';
    *p = '\0';
    a->longs[nr_longs] = (struct option){ "help", no_argument, NULL, 'h' };
    optind = 1;
}

/* The option that a word, which is none, may stand for: its start if that is
 * long enough, or one that is written almost like it; or NULL. */
static const struct tool_option *
guess_option(const struct args *a, const char *word)
{
    for (const struct tool_option *o = a->verb->options; o->key; o++)
        if (o->name && o->help && text_is_close(o->name, word))
            return o;
    return NULL;
}

/* Of "-output=json", which getopt takes for the letters o, u and so on, the
 * option whose long name that is. */
static const struct tool_option *
guess_dash(const struct args *a)
{
    for (int i = optind - 1; i <= optind; i++) {
        const char *word = i < a->argc ? a->argv[i] : "";
        size_t len = strcspn(word, "=");

        if (len < 4 || word[0] != '-' || word[1] == '-')
            continue;
        for (const struct tool_option *o = a->verb->options; o->key; o++)
            if (o->name && o->help && strlen(o->name) == len - 1
                && strncmp(o->name, word + 1, len - 1) == 0)
                return o;
    }
    return NULL;
}

/* Options of qemu-img for what is not supported. */
static const struct {
    const char *name, *why;
} missing[] = {
    { "object", "it is for encrypted images (LUKS), which are not supported" },
};

/* A word on the command line that begins with "--", and is no option. */
static void __attribute__((noreturn))
refuse_word(const struct args *a, const char *word)
{
    CLEANUP_FREE char *text = text_escape(word);
    CLEANUP_FREE char *name = check_memory(strndup(word + 2,
                                                   strcspn(word + 2, "=")));
    const struct tool_option *meant = guess_option(a, name);

    for (size_t i = 0; i < sizeof missing / sizeof missing[0]; i++)
        if (strcmp(missing[i].name, name) == 0)
            usage_error(a->verb, "there is no option --%s: %s", name,
                        missing[i].why);
    if (meant)
        usage_error(a->verb, "unknown option '%s'; did you mean --%s?", text,
                    meant->name);
    usage_error(a->verb, "unknown option '%s'", text);
}

/* What getopt just objected to: optopt is 0 for a word, and else a letter, or
 * the key of an option that has a value but takes none. */
static void __attribute__((noreturn))
refuse_option(const struct args *a)
{
    CLEANUP_FREE char *letter = NULL;
    const struct tool_option *meant;

    if (optopt == 0)
        refuse_word(a, a->argv[optind - 1]);
    if (args_accept(optopt) || optopt == 'h')
        usage_error(a->verb, "option '%.*s' takes no value",
                    (int)strcspn(a->argv[optind - 1], "="),
                    a->argv[optind - 1]);
    letter = text_escape((const char[]){ optopt, '\0' });
    meant = guess_dash(a);
    if (meant)
        usage_error(a->verb, "unknown option '-%s'; did you mean --%s?",
                    letter, meant->name);
    usage_error(a->verb, "unknown option '-%s'", letter);
}

/* Of the option that getopt misses a value of: as it was written. */
static const char *
option_text(const struct args *a, char buf[3])
{
    const char *word = a->argv[optind - 1];

    if (strncmp(word, "--", 2) == 0)
        return word;
    snprintf(buf, 3, "-%c", optopt);
    return buf;
}

int
args_next(struct args *a)
{
    char buf[3];
    int key = getopt_long(a->argc, a->argv, a->letters, a->longs, NULL);

    a->value = optarg;
    switch (key) {
    case '?':
        refuse_option(a);
    case ':':
        usage_error(a->verb, "option '%s' needs an argument",
                    option_text(a, buf));
    case 'h':
        help_print(a->verb);
        exit(EXIT_SUCCESS);
    case -1:
        a->operands = a->argv + optind;
        a->nr_operands = a->argc - optind;
        free(a->letters);
        free(a->longs);
        a->letters = NULL;
        a->longs = NULL;
    }
    return key;
}

void
args_need(const struct args *a, int nr, const char *what)
{
    if (a->nr_operands != nr)
        usage_error(a->verb, "expects %s", what);
}
