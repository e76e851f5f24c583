/* SPDX-License-Identifier: BSD-3-Clause */
/* sandbox.c: decides what the process may still do once it serves.
 *
 * The rules are gathered in get_ready, where names on the command line still
 * mean what they did, and put into force in after_fork: the command of --run
 * is another process by then, the user has changed, and no connection has a
 * thread yet. That is the last moment, as clients and images are not trusted.
 */
#include <config.h>

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <link.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "plugin.h"
#include "sandbox.h"

/* What the C library, TLS and host names need, for every user. */
static const char *const system_files[] = {
    "/lib", "/lib32", "/lib64", "/libx32", "/usr/lib", "/usr/lib32",
    "/usr/lib64", "/usr/libx32", "/usr/local/lib", "/usr/share/locale",
    "/usr/share/zoneinfo", "/etc/localtime", "/etc/ld.so.cache",
    "/etc/gnutls", "/etc/crypto-policies", "/usr/share/crypto-policies",
    "/dev/urandom", "/dev/random", "/sys/devices/system/cpu",
};

/* What connecting to other NBD servers needs besides. */
static const char *const network_files[] = {
    "/etc/hosts", "/etc/host.conf", "/etc/resolv.conf", "/etc/nsswitch.conf",
    "/etc/gai.conf", "/etc/services", "/run/systemd/resolve", "/etc/ssl/certs",
    "/usr/share/ca-certificates", "/etc/pki", "/etc/ca-certificates",
};

/* No variables besides: a ruleset is known by its descriptor. */
static int ruleset = -1;

static bool
is_uri(const char *name)
{
    return strstr(name, "://") != NULL;
}

static bool
uses_network(void)
{
    bool found = config.backing && is_uri(config.backing);

    for (size_t i = 0; i < config.nr_allow; i++)
        found = found || is_uri(config.allow[i]);
    return found;
}

static int
report_rule(int r, const char *path)
{
    if (r == -1)
        nbdkit_error("sandbox: %s: %m; sandbox=off goes without", path);
    return r;
}

static int
allow(const char *path, unsigned access)
{
    return report_rule(landlock_allow(ruleset, path, access), path);
}

static int
allow_list(const char *const *paths, size_t nr)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < nr; i++)
        r = allow(paths[i], SANDBOX_READ);
    return r;
}

static int
allow_dir_of(const char *path, unsigned access)
{
    const char *slash = strrchr(path, '/');
    char *dir = slash ? strndup(path, slash - path + 1) : strdup(".");
    int r;

    if (!dir) {
        nbdkit_error("sandbox: %m");
        return -1;
    }
    r = allow(dir, access);
    free(dir);
    return r;
}

/* The system's own node of a device, for the locks that it has. */
static int
allow_node(dev_t device)
{
    char path[64];

    snprintf(path, sizeof path, "/dev/block/%u:%u", major(device),
             minor(device));
    return allow(path, SANDBOX_READ);
}

/* The directory of an image, as the backing files of an image lie there, and
 * a new image may take the place of an old one while the server runs. A
 * device is allowed alone: nothing else in /dev is any image's.
 */
static int
allow_image(const char *path, unsigned access)
{
    char *real = is_uri(path) ? NULL : realpath(path, NULL);
    struct stat st;
    int r;

    if (!real)
        return 0; /* opening it says why */
    if (stat(real, &st) == 0 && S_ISBLK(st.st_mode))
        r = allow(real, access) == -1 ? -1 : allow_node(st.st_rdev);
    else
        r = allow_dir_of(real, access);
    free(real);
    if (r == 0 && config.fd >= 0) /* it may have no name any more */
        r = allow(path, access);
    return r;
}

static int
allow_images(void)
{
    int r = 0;

    if (config.file)
        r = allow_image(config.file, SANDBOX_READ | SANDBOX_WRITE);
    if (r == 0 && config.dir)
        /* Its name may lead to another one by now. */
        r = report_rule(landlock_allow_fd(ruleset, config.dir_fd,
                                          SANDBOX_READ | SANDBOX_WRITE),
                        config.dir);
    if (r == 0 && config.backing)
        r = allow_image(config.backing, SANDBOX_READ);
    for (size_t i = 0; r == 0 && i < config.nr_allow; i++)
        if (!is_uri(config.allow[i]))
            r = allow(config.allow[i], SANDBOX_READ);
    return r;
}

/* Files that are named on the command line for nbdkit or a filter, as
 * --tls-psk=FILE, may be read later, too. Those that do not exist are words.
 */
static int
allow_command_line(void)
{
    FILE *fp = fopen("/proc/self/cmdline", "re");
    const char *value;
    char *word = NULL;
    size_t size = 0;
    int r = 0;

    while (fp && r == 0 && getdelim(&word, &size, '\0', fp) > 0) {
        if (strncmp(word, "dir=", 4) == 0 || strncmp(word, "allow=", 6) == 0)
            continue; /* those that were opened have rules of their own */
        value = strchr(word, '=');
        r = allow(word, SANDBOX_READ);
        if (r == 0 && value)
            r = allow(value + 1, SANDBOX_READ);
    }
    free(word);
    if (fp)
        fclose(fp);
    return r;
}

static int
is_filter(struct dl_phdr_info *info, size_t size, void *found)
{
    (void)size;
    *(bool *)found |= strstr(info->dlpi_name, "-filter.so") != NULL;
    return 0;
}

/* Filters may keep temporary files, some for each connection. */
static int
allow_filters(void)
{
    const unsigned access =
        SANDBOX_READ | SANDBOX_WRITE | SANDBOX_CREATE | SANDBOX_REMOVE;
    const char *tmpdir = getenv("TMPDIR");
    bool found = false;

    dl_iterate_phdr(is_filter, &found);
    if (!found)
        return 0;
    return allow(tmpdir && *tmpdir ? tmpdir : "/var/tmp", access);
}

/* libnbd looks for certificates in the home directory as well. */
static int
allow_network(void)
{
    static const char *const below_home[] = { ".pki", ".config/pki" };
    const char *home = getenv("HOME"), *path;
    int r = allow_list(network_files,
                       sizeof network_files / sizeof *network_files);

    for (size_t i = 0; r == 0 && home && i < 2; i++) {
        path = nbdkit_printf_intern("%s/%s", home, below_home[i]);
        r = path ? allow(path, SANDBOX_READ) : -1;
    }
    return r;
}

int
sandbox_check(void)
{
    bool has_landlock = landlock_is_supported();

    if (config.sandbox != SANDBOX_ON
        || (has_landlock && seccomp_is_supported()))
        return 0;
    nbdkit_error("sandbox=on: %s; without the parameter the server restricts "
                 "itself as far as it can",
                 has_landlock ? "this build or kernel has no seccomp"
                              : "this kernel has no Landlock");
    return -1;
}

int
sandbox_prepare(void)
{
    if (config.sandbox == SANDBOX_OFF || !landlock_is_supported())
        return 0;
    ruleset = landlock_new(!uses_network());
    if (ruleset == -1) {
        nbdkit_error("sandbox: cannot make rules: %m");
        return -1;
    }
    tzset(); /* syslog's time */
    if (allow_list(system_files, sizeof system_files / sizeof *system_files)
            == -1
        || allow("/dev/null", SANDBOX_READ | SANDBOX_WRITE) == -1
        || allow_images() == -1 || allow_command_line() == -1
        || allow_filters() == -1
        || (uses_network() && allow_network() == -1))
        return -1;
    return 0;
}

/* The directory of '-U -', /tmp/nbdkitXXXXXX, which nbdkit removes at its
 * end, with the socket in it. It is made after get_ready.
 */
static int
allow_socket(int fd)
{
    struct sockaddr_un addr = { .sun_family = AF_UNSPEC };
    socklen_t len = sizeof addr - 1;
    char *slash;
    int r;

    if (getsockname(fd, (struct sockaddr *)&addr, &len) == -1
        || addr.sun_family != AF_UNIX)
        return 0;
    slash = strstr(addr.sun_path, "/nbdkit");
    if (!slash || strlen(slash) != strlen("/nbdkitXXXXXX/socket")
        || strcmp(slash + strlen("/nbdkitXXXXXX"), "/socket") != 0)
        return 0;
    slash[strlen("/nbdkitXXXXXX")] = '\0';
    r = allow(addr.sun_path, SANDBOX_REMOVE);
    *slash = '\0';
    return r == 0 ? allow(addr.sun_path, SANDBOX_REMOVE_DIR) : r;
}

static int
allow_sockets(void)
{
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *e;
    int r = 0;

    while (dir && r == 0 && (e = readdir(dir)))
        if (e->d_name[0] != '.')
            r = allow_socket(atoi(e->d_name));
    if (dir)
        closedir(dir);
    return r;
}

static int
enter_landlock(void)
{
    if (allow_sockets() == -1)
        return -1;
    if (landlock_enter(ruleset) == -1) {
        nbdkit_error("sandbox: cannot restrict file access: %m; sandbox=off "
                     "goes without");
        return -1;
    }
    close(ruleset);
    ruleset = -1;
    return 0;
}

int
sandbox_enter(void)
{
    bool has_landlock = ruleset != -1;
    bool has_seccomp = config.sandbox != SANDBOX_OFF && seccomp_is_supported();

    if (has_landlock && enter_landlock() == -1)
        return -1;
    if (has_seccomp && seccomp_enter(!uses_network()) == -1) {
        nbdkit_error("sandbox: cannot restrict system calls: %m; sandbox=off "
                     "goes without");
        return -1;
    }
    nbdkit_debug("sandbox: files are %srestricted, system calls are "
                 "%srestricted", has_landlock ? "" : "not ",
                 has_seccomp ? "" : "not ");
    return 0;
}
