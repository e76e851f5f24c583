/* SPDX-License-Identifier: BSD-3-Clause */
/* test-escape.c: what an image says is harmless on a terminal. */
#include "base/escape.h"

#include "expect.h"

static void
test_printable_text_is_kept(void **state)
{
    (void)state;
    assert_string_equal(ESCAPED("a Name-1.qcow2 ~'\""),
                        "a Name-1.qcow2 ~'\"");
    assert_string_equal(ESCAPED(""), "");
}

static void
test_other_bytes_become_numbers(void **state)
{
    char out[ESCAPE_SIZE];

    (void)state;
    assert_string_equal(ESCAPED("a\x1b[2J\n"), "a\\x1b[2J\\x0a");
    assert_string_equal(ESCAPED("\xc3\xbc\x7f\x9b"), "\\xc3\\xbc\\x7f\\x9b");
    /* So that no two names look the same. */
    assert_string_equal(ESCAPED("\\x41"), "\\x5cx41");
    assert_string_equal(escape_bytes(out, "a\0b", 3), "a\\x00b");
}

static void
test_long_names_are_cut_with_a_mark(void **state)
{
    char out[ESCAPE_SIZE], in[2000];

    (void)state;
    for (size_t len = 0; len < sizeof in; len++) {
        memset(in, 'n', sizeof in);
        escape_bytes(out, in, len);
        assert_true(strlen(out) < ESCAPE_SIZE);
        assert_true(strlen(out) == len || strstr(out, "n..."));
        memset(in, 1, sizeof in);
        escape_bytes(out, in, len);
        assert_true(strlen(out) == len * 4 || strstr(out, "1..."));
    }
}

static const char *
without_controls(const char *text)
{
    static char buf[64];

    snprintf(buf, sizeof buf, "%s", text);
    escape_controls(buf, sizeof buf);
    return buf;
}

static void
test_control_characters_become_numbers_in_place(void **state)
{
    (void)state;
    assert_string_equal(without_controls(""), "");
    assert_string_equal(without_controls("a \\x1b '\xc3\xa9'"),
                        "a \\x1b '\xc3\xa9'");
    assert_string_equal(without_controls("a\x1b[31m\x7f"),
                        "a\\x1b[31m\\x7f");
    assert_string_equal(without_controls("\xc2\x9b" "1m \x9b"),
                        "\\xc2\\x9b1m \\x9b");
    assert_string_equal(without_controls("\xe2\x82\xac \xf0\x9f\x90\x84\n"),
                        "\xe2\x82\xac \xf0\x9f\x90\x84\\x0a");
    /* Sequences that end too early hide nothing. */
    assert_string_equal(without_controls("\xe2\x1b\xe2\x82\x1b\xc2"),
                        "\xe2\\x1b\xe2\\x82\\x1b\xc2");
}

static void
test_what_grows_too_long_is_cut(void **state)
{
    (void)state;
    for (size_t size = 1; size < 40; size++) {
        char buf[64], whole[64] = "";

        memset(buf, 'z', sizeof buf);
        snprintf(buf, size, "%s", "ab\x1b\x1b" "cd\xc2\x9b" "efgh\x7f");
        escape_controls(buf, size);
        assert_true(strlen(buf) < size);
        assert_int_equal(buf[size], 'z');
        snprintf(whole, sizeof whole, "%s",
                 "ab\\x1b\\x1bcd\\xc2\\x9befgh\\x7f");
        for (size_t i = 0; buf[i]; i++)
            assert_true((unsigned char)buf[i] >= 0x20);
        if (size > strlen(whole))
            assert_string_equal(buf, whole);
    }
}

/* Shells agree on what is in single quotes. */
static void
test_words_for_a_shell_mean_what_they_were(void **state)
{
    static const char *const words[][2] = {
        { "/srv/bases", "/srv/bases" },
        { "", "''" },
        { "/my bases", "'/my bases'" },
        { "nbd+unix:///?socket=/a", "'nbd+unix:///?socket=/a'" },
        { "/it's", "'/it'\\''s'" },
        { "$(x)`y`\\\"", "'$(x)`y`\\\"'" },
        { "~", "'~'" },
    };
    char out[64], small[12];

    (void)state;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        assert_true(escape_for_shell(out, sizeof out, words[i][0]));
        assert_string_equal(out, words[i][1]);
    }
    assert_false(escape_for_shell(out, sizeof out, "/a\nb"));
    assert_false(escape_for_shell(out, sizeof out, "/n\xc3\xa4me"));
    assert_true(escape_for_shell(small, sizeof small, "/2345678901"));
    assert_true(escape_for_shell(small, sizeof small, "/ 3456789"));
    assert_false(escape_for_shell(small, sizeof small, "/23456789012"));
    assert_false(escape_for_shell(small, sizeof small, "/ 34567890"));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_printable_text_is_kept),
        cmocka_unit_test(test_other_bytes_become_numbers),
        cmocka_unit_test(test_long_names_are_cut_with_a_mark),
        cmocka_unit_test(test_control_characters_become_numbers_in_place),
        cmocka_unit_test(test_what_grows_too_long_is_cut),
        cmocka_unit_test(test_words_for_a_shell_mean_what_they_were),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
