/* Makes the n-th thing that needs room on a disk fail as a full one does.
   FULL_DISK_TOLD: a file, shared by all processes, of how many there were, n, from 1, whether all
   after it fail too, and the path prefix. It may be written anew while they run. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static struct told { long count, at, stays; char under[PATH_MAX]; } *told;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void begin(void) {
    const char *file = getenv("FULL_DISK_TOLD");
    if (!file) return;
    int handle = REAL(open)(file, O_RDWR | O_CLOEXEC);
    if (handle < 0) return;
    void *seen = mmap(NULL, sizeof(struct told), PROT_READ | PROT_WRITE, MAP_SHARED, handle, 0);
    close(handle);
    if (seen != MAP_FAILED) told = seen;
}

static int counted(void) {
    long now = __atomic_add_fetch(&told->count, 1, __ATOMIC_SEQ_CST);
    if (told->at && (now == told->at || (now > told->at && told->stays))) {
        errno = ENOSPC;
        return 1;
    }
    return 0;
}

static int path_full(int folder, const char *path) {
    char whole[2 * PATH_MAX], link[64];
    if (!told || !told->under[0] || !path) return 0;
    whole[0] = 0;
    if (path[0] != '/') {
        if (folder == AT_FDCWD) strcpy(link, "/proc/self/cwd");
        else snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t got = readlink(link, whole, PATH_MAX);
        if (got < 0) return 0;
        whole[got] = 0;
        strcat(whole, "/");
    }
    strncat(whole, path, PATH_MAX - 1);
    return !strncmp(whole, told->under, strlen(told->under)) && counted();
}

static int handle_full(int handle) {
    char link[64], whole[PATH_MAX];
    int before = errno;
    if (!told || !told->under[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t got = readlink(link, whole, sizeof whole - 1);
    errno = before;
    if (got < 0) return 0;
    whole[got] = 0;
    return !strncmp(whole, told->under, strlen(told->under)) && counted();
}

ssize_t write(int h, const void *d, size_t n) { return handle_full(h) ? -1 : REAL(write)(h, d, n); }
ssize_t pwrite(int h, const void *d, size_t n, off_t o) { return handle_full(h) ? -1 : REAL(pwrite)(h, d, n, o); }
ssize_t pwrite64(int h, const void *d, size_t n, off64_t o) { return handle_full(h) ? -1 : REAL(pwrite64)(h, d, n, o); }
ssize_t writev(int h, const struct iovec *v, int n) { return handle_full(h) ? -1 : REAL(writev)(h, v, n); }
int ftruncate(int h, off_t n) { return handle_full(h) ? -1 : REAL(ftruncate)(h, n); }
int ftruncate64(int h, off64_t n) { return handle_full(h) ? -1 : REAL(ftruncate64)(h, n); }
int fallocate(int h, int m, off_t o, off_t n) { return handle_full(h) ? -1 : REAL(fallocate)(h, m, o, n); }
int posix_fallocate(int h, off_t o, off_t n) { return handle_full(h) ? ENOSPC : REAL(posix_fallocate)(h, o, n); }
int fsync(int h) { return handle_full(h) ? -1 : REAL(fsync)(h); }
int fdatasync(int h) { return handle_full(h) ? -1 : REAL(fdatasync)(h); }
int rename(const char *a, const char *b) { return path_full(AT_FDCWD, b) ? -1 : REAL(rename)(a, b); }
int renameat(int f, const char *a, int g, const char *b) { return path_full(g, b) ? -1 : REAL(renameat)(f, a, g, b); }
int mkdir(const char *p, mode_t m) { return path_full(AT_FDCWD, p) ? -1 : REAL(mkdir)(p, m); }
int mkdirat(int f, const char *p, mode_t m) { return path_full(f, p) ? -1 : REAL(mkdirat)(f, p, m); }

#define MODE(flags) \
    va_list more; va_start(more, flags); \
    mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(more, mode_t) : 0; va_end(more);
#define MAKES(flags) ((flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE)
int open(const char *p, int flags, ...) { MODE(flags) return MAKES(flags) && path_full(AT_FDCWD, p) ? -1 : REAL(open)(p, flags, mode); }
int open64(const char *p, int flags, ...) { MODE(flags) return MAKES(flags) && path_full(AT_FDCWD, p) ? -1 : REAL(open64)(p, flags, mode); }
int openat(int f, const char *p, int flags, ...) { MODE(flags) return MAKES(flags) && path_full(f, p) ? -1 : REAL(openat)(f, p, flags, mode); }
int openat64(int f, const char *p, int flags, ...) { MODE(flags) return MAKES(flags) && path_full(f, p) ? -1 : REAL(openat64)(f, p, flags, mode); }
