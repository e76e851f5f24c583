/* SPDX-License-Identifier: BSD-3-Clause */
/* lock-order.h: asserts the order of the engine's locks that image.h
 * declares, in each thread whenever it takes one: nobody takes an upper one
 * while holding a lower one, one of the same kind only where that has an
 * order of its own (windows of a range lock, upwards), and none of two images
 * at a time. Nobody does I/O, or waits, under what is never held over I/O.
 * So a wrong order is seen without the threads that it would lock up.
 *
 * The linker puts it between the engine and its locks (--wrap; the list is in
 * configure.ac). It is part of all tests in C, and with --enable-lock-checks
 * of the plugin and the tool.
 */
#ifndef LOCK_ORDER_H
#define LOCK_ORDER_H

/* For its own test: where set, violations are told there, the first one in
 * words, and the program goes on. NULL: it is printed, and the program ends.
 */
struct lock_report {
    unsigned nr_violations;
    char first[256];
};
extern struct lock_report *lock_order_report;

/* How often a lock of each rank (0 to 9, image.h) was taken so far. */
unsigned long lock_order_taken(unsigned rank);

/* Called before each mutex is locked, where a program has it (lock-jitter.c).
 */
void lock_jitter(void) __attribute__((weak));

#endif /* LOCK_ORDER_H */
