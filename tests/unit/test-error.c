/* SPDX-License-Identifier: BSD-3-Clause */
/* test-error.c: errors and their texts. */
#include "base/error.h"

#include <errno.h>

#include "expect.h"

static void
an_error_has_a_number_and_a_text(void **state)
{
    struct qcow2_error err;

    (void)state;
    assert_int_equal(error_set(&err, EIO, "cluster %d", 7), -1);
    assert_int_equal(err.errnum, EIO);
    assert_string_equal(err.text, "cluster 7");
}

static void
a_system_error_appends_its_text(void **state)
{
    struct qcow2_error err;

    (void)state;
    assert_int_equal(error_set_errno(&err, ENOENT, "a.qcow2"), -1);
    assert_int_equal(err.errnum, ENOENT);
    assert_string_equal(err.text, "a.qcow2: No such file or directory");
}

static void
context_goes_before_the_text_and_keeps_the_number(void **state)
{
    struct qcow2_error err;

    (void)state;
    error_set(&err, EIO, "damaged");
    assert_int_equal(error_prefix(&err, "snapshot '%s'", "a"), -1);
    assert_int_equal(error_prefix(&err, "disk"), -1);
    assert_int_equal(err.errnum, EIO);
    assert_string_equal(err.text, "disk: snapshot 'a': damaged");
}

static void
hints_add_up_and_stay_until_the_next_error(void **state)
{
    struct qcow2_error err;

    (void)state;
    error_set(&err, EROFS, "corrupt");
    assert_int_equal(err.hints, 0);
    assert_int_equal(error_hint(&err, QCOW2_HINT_READONLY), -1);
    error_hint(&err, QCOW2_HINT_REPAIR);
    error_prefix(&err, "disk");
    assert_int_equal(err.hints, QCOW2_HINT_READONLY | QCOW2_HINT_REPAIR);
    assert_int_equal(err.errnum, EROFS);
    assert_string_equal(err.text, "disk: corrupt");
    error_set_errno(&err, EIO, "disk");
    assert_int_equal(err.hints, 0);
    assert_int_equal(error_hint(NULL, QCOW2_HINT_REPAIR), -1);
}

static void
texts_are_safe_whatever_is_put_into_them(void **state)
{
    struct qcow2_error err;

    (void)state;
    error_set(&err, EIO, "%s", "a\x1b[2J");
    assert_string_equal(err.text, "a\\x1b[2J");
    error_prefix(&err, "%s", "b\x7f");
    assert_string_equal(err.text, "b\\x7f: a\\x1b[2J");
    error_set_errno(&err, ENOENT, "%s", "c\xc2\x9b");
    assert_string_equal(err.text, "c\\xc2\\x9b: No such file or directory");
}

static void
texts_that_are_too_long_are_cut_at_their_end(void **state)
{
    struct qcow2_error err;
    char longest[2 * sizeof err.text];

    (void)state;
    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = '\0';

    error_set(&err, EIO, "%s", longest);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    error_prefix(&err, "context");
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    assert_memory_equal(err.text, "context: xxx", 12);
    error_set_errno(&err, EIO, "%s", longest);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    error_prefix(&err, "%s", longest);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
}

static void
nobody_needs_to_want_the_error(void **state)
{
    (void)state;
    assert_int_equal(error_set(NULL, EIO, "x"), -1);
    assert_int_equal(error_set_errno(NULL, EIO, "x"), -1);
    assert_int_equal(error_prefix(NULL, "x"), -1);
    assert_int_equal(error_nomem(NULL), -1);
}

static void
no_memory_is_an_error_like_others(void **state)
{
    struct qcow2_error err;

    (void)state;
    assert_int_equal(error_nomem(&err), -1);
    assert_int_equal(err.errnum, ENOMEM);
    assert_true(err.text[0]);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_error_has_a_number_and_a_text),
        cmocka_unit_test(a_system_error_appends_its_text),
        cmocka_unit_test(context_goes_before_the_text_and_keeps_the_number),
        cmocka_unit_test(hints_add_up_and_stay_until_the_next_error),
        cmocka_unit_test(texts_are_safe_whatever_is_put_into_them),
        cmocka_unit_test(texts_that_are_too_long_are_cut_at_their_end),
        cmocka_unit_test(nobody_needs_to_want_the_error),
        cmocka_unit_test(no_memory_is_an_error_like_others),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
