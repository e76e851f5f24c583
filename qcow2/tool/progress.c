/* SPDX-License-Identifier: BSD-3-Clause */
/* progress.c: shows how far a long operation is, and cancels it. */
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tool.h"

static volatile sig_atomic_t asked;       /* by SIGUSR1, to show it once */
static volatile sig_atomic_t interrupted; /* the signal */

static struct {
    enum { SHOW_NOTHING, SHOW_LINES, SHOW_BAR } show;
    double shown;           /* percent; less than 0: nothing yet */
    uint64_t rate;          /* bytes a second; 0: unlimited */
    struct timespec start;
    bool has_bar;           /* on the terminal's line now */
} progress;

static void
on_usr1(int sig)
{
    (void)sig;
    asked = 1;
}

static void
on_interrupt(int sig)
{
    interrupted = sig;
}

static void
set_handler(int sig, void (*handler)(int), int flags)
{
    struct sigaction sa = { .sa_handler = handler, .sa_flags = flags };

    sigemptyset(&sa.sa_mask);
    sigaction(sig, &sa, NULL);
}

void
progress_init(void)
{
    set_handler(SIGUSR1, on_usr1, SA_RESTART);
}

/* The second time nobody is asked. What is ignored (nohup) stays so. */
void
progress_catch_signals(void)
{
    static const int signals[] = { SIGINT, SIGTERM, SIGHUP };

    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
        struct sigaction now;

        if (sigaction(signals[i], NULL, &now) == 0
            && now.sa_handler != SIG_IGN)
            set_handler(signals[i], on_interrupt, SA_RESETHAND);
    }
}

bool
progress_interrupted(void)
{
    return interrupted != 0;
}

/* Ends as the signal would have ended us, so that a shell stops too. */
void
progress_die_if_interrupted(void)
{
    if (interrupted) {
        set_handler(interrupted, SIG_DFL, 0);
        raise(interrupted);
    }
}

static double
seconds_since_start(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec - progress.start.tv_sec
           + (now.tv_nsec - progress.start.tv_nsec) / 1e9;
}

/* What is done in a moment needs no bar. */
static void
show_bar(double percent)
{
    enum { WIDTH = 50 };
    int filled = percent * WIDTH / 100;

    if (!progress.has_bar && seconds_since_start() < 0.5)
        return;
    progress.has_bar = true;
    printf("\r[%.*s%*s] %5.1f %%", filled,
           "##################################################",
           WIDTH - filled, "", percent);
    fflush(stdout);
}

static void
show(double percent)
{
    progress.shown = percent;
    switch (progress.show) {
    case SHOW_NOTHING:
        if (asked)
            fprintf(stderr, "    (%.2f/100%%)\n", percent);
        break;
    case SHOW_LINES:
        printf("    (%.2f/100%%)\r", percent);
        fflush(stdout);
        break;
    case SHOW_BAR:
        show_bar(percent);
        break;
    }
    asked = 0;
}

void
progress_begin(bool wanted, bool quiet)
{
    progress.show = quiet ? SHOW_NOTHING
                    : isatty(STDOUT_FILENO) ? SHOW_BAR
                    : wanted ? SHOW_LINES : SHOW_NOTHING;
    progress.shown = -1;
    clock_gettime(CLOCK_MONOTONIC, &progress.start);
    progress_catch_signals();
    show(0);
}

void
progress_limit_rate(uint64_t bytes_per_second)
{
    progress.rate = bytes_per_second;
}

/* Waits until this many bytes are due. */
static void
wait_for_rate(uint64_t done)
{
    double due = (double)done / progress.rate;

    while (!interrupted) {
        double left = due - seconds_since_start();
        struct timespec pause;

        if (left <= 0)
            return;
        pause.tv_sec = left;
        pause.tv_nsec = (left - pause.tv_sec) * 1e9;
        nanosleep(&pause, NULL);
        if (asked)
            show(progress.shown);
    }
}

int
progress_show(void *opaque, uint64_t done, uint64_t total)
{
    double percent = total ? (double)done * 100 / total : 100;

    (void)opaque;
    if (asked || percent >= progress.shown + 1
        || (percent >= 100 && progress.shown < 100))
        show(percent);
    if (progress.rate)
        wait_for_rate(done);
    return interrupted != 0;
}

void
progress_end(void)
{
    if (progress.show == SHOW_LINES || progress.has_bar)
        putchar('\n');
    progress.show = SHOW_NOTHING;
    progress.has_bar = false;
}

/* 0, or -1 with *err. */
static int
run_job(struct qcow2_job *job, bool wanted, bool quiet,
        struct qcow2_error *err)
{
    int r;

    if (!job)
        return -1;
    progress_begin(wanted, quiet);
    r = qcow2_job_run(job, progress_show, NULL, err);
    qcow2_job_free(job);
    if (r == 0)
        show(100);
    progress_end();
    return r;
}

static int
finish(int r, const struct qcow2_error *err)
{
    if (r == 0)
        return EXIT_SUCCESS;
    if (interrupted) {
        report("interrupted");
        return EXIT_FAILURE;
    }
    return report_error(err);
}

int
job_finish(struct qcow2_job *job, bool wanted, bool quiet,
           struct qcow2_error *err)
{
    return finish(run_job(job, wanted, quiet, err), err);
}

int
job_finish_overlay(job_begin_fn *begin, void *opaque,
                   enum qcow2_left_to_backing snapshots, bool wanted,
                   bool quiet)
{
    struct qcow2_error err;
    int r = run_job(begin(opaque, snapshots, &err), wanted, quiet, &err);

    if (r == -1 && err.hints & QCOW2_HINT_SNAPSHOTS && called_as_qemu_img()) {
        report_warning("%s", err.text);
        r = run_job(begin(opaque, QCOW2_SNAPSHOTS_CHANGE, &err), wanted,
                    quiet, &err);
    }
    return finish(r, &err);
}
