/* A disk that fails: preloaded, it lets the n-th write or sync of the files below FAULT_PATH go wrong.

   FAULT_CONTROL names a file of five 32-bit integers that the tests write: what (0 nothing, 1 writes, 2 syncs), how (1 the
   call fails, 2 half of the bytes are written and the next write fails, 3 the sync fails and what was not synced before is
   gone), the errno, how many calls go well before, how many fail then. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WRITES = 1, SYNCS = 2 };
enum { FAILS = 1, HALF = 2, DROPS = 3 };
enum { FILES = 4096 };

static volatile int32_t *control; /* what, how, errno, after, count */
static const char *below;
static off_t synced[FILES];

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("FAULT_CONTROL");
    below = getenv("FAULT_PATH");
    if (path == NULL || below == NULL) return;
    int file = open(path, O_RDWR);
    if (file < 0) abort();
    control = mmap(NULL, 5 * sizeof(int32_t), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (control == MAP_FAILED) abort();
    close(file);
}

static int ours(int file) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strstr(path, below) != NULL;
}

/* whether this call is one that goes wrong */
static int due(int what, int file) {
    if (control == NULL || control[0] != what || !ours(file)) return 0;
    if (control[3] > 0) {
        control[3]--;
        return 0;
    }
    if (control[4] <= 0) return 0;
    control[4]--;
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static ssize_t half(ssize_t (*rest)(int, const void *, size_t, off_t), int file, const void *data, size_t size, off_t at) {
    if (control[1] == HALF && size > 1) {
        control[1] = FAILS;
        control[4]++;
        return rest(file, data, size / 2, at);
    }
    errno = control[2];
    return -1;
}

static ssize_t plain(int file, const void *data, size_t size, off_t at) {
    (void)at;
    return REAL(write)(file, data, size);
}

static ssize_t placed(int file, const void *data, size_t size, off_t at) { return REAL(pwrite64)(file, data, size, at); }

ssize_t write(int file, const void *data, size_t size) {
    return due(WRITES, file) ? half(plain, file, data, size, 0) : REAL(write)(file, data, size);
}

ssize_t pwrite64(int file, const void *data, size_t size, off64_t at) {
    return due(WRITES, file) ? half(placed, file, data, size, at) : REAL(pwrite64)(file, data, size, at);
}

ssize_t pwrite(int file, const void *data, size_t size, off_t at) { return pwrite64(file, data, size, at); }

static int sync_with(int (*real)(int), int file) {
    struct stat now;
    if (!due(SYNCS, file)) {
        int result = real(file);
        if (result == 0 && file < FILES && fstat(file, &now) == 0) synced[file] = now.st_size;
        return result;
    }
    if (control[1] == DROPS && file < FILES && fstat(file, &now) == 0 && synced[file] < now.st_size)
        if (ftruncate(file, synced[file]) != 0) abort();
    errno = control[2];
    return -1;
}

int fsync(int file) { return sync_with(REAL(fsync), file); }

int fdatasync(int file) { return sync_with(REAL(fdatasync), file); }

/* a descriptor is used again for another file */
int close(int file) {
    if (file >= 0 && file < FILES) synced[file] = 0;
    return REAL(close)(file);
}
