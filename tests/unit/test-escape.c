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

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_printable_text_is_kept),
        cmocka_unit_test(test_other_bytes_become_numbers),
        cmocka_unit_test(test_long_names_are_cut_with_a_mark),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
