/* Faults at file boundaries: every call that changes a file beneath one folder is counted, and one of
 * them ends the process, fails, or is interrupted. Built and preloaded by `shim.py`; told by a mapped page
 * that all processes of a command share. Calls that libc makes to itself (fwrite) are not seen, nor system
 * calls made without it: of a work folder's 96 that strace shows, four renames by safetensors within a
 * hidden folder. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* In the order of shim.py's struct. `at` is the boundary (from 1) with the fault. */
struct page {
  long count, at, fault, error, fired;
  char folder[1024], log[1024];
};
enum { NONE, KILL, TORN, FAIL_ONCE, FAIL_EVER, INTERRUPT, VANISH };
enum { CREATE = 1, WRITE = 2, NAMES = 4, SYNC = 8 };  /* kinds of boundaries */

static struct page *page;

__attribute__((constructor)) void file_faults_begin(void) {
  const char *name = getenv("FILE_FAULTS_PAGE");
  int fd = name ? syscall(SYS_openat, AT_FDCWD, name, O_RDWR) : -1;
  if (fd < 0) return;
  void *there = mmap(NULL, sizeof(struct page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  syscall(SYS_close, fd);
  if (there != MAP_FAILED) page = there;
}

static void note(const char *text) {
  int fd = syscall(SYS_openat, AT_FDCWD, page->log, O_WRONLY | O_CREAT | O_APPEND, 0644);
  if (fd < 0) return;
  syscall(SYS_write, fd, text, strlen(text));
  syscall(SYS_close, fd);
}

static int beneath(const char *path) {
  size_t length = page ? strlen(page->folder) : 0;
  return length && !strncmp(path, page->folder, length) && (path[length] == '/' || !path[length]);
}

static void link_of(const char *link, char *path) {
  ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
  path[length < 0 ? 0 : length] = 0;
}

static void of_fd(int fd, char *path) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  link_of(link, path);
}

static void of_name(int folder, const char *name, char *path) {
  char base[PATH_MAX];
  if (name[0] == '/') {
    snprintf(path, PATH_MAX, "%s", name);
    return;
  }
  if (folder == AT_FDCWD) link_of("/proc/self/cwd", base);
  else of_fd(folder, base);
  snprintf(path, PATH_MAX, "%.2000s/%.2000s", base, name);
}

/* The error that this boundary has, 0 for none; *torn where half of a write is to be made first. */
static int boundary(int kind, const char *call, const char *path, const char *other, long size, int *torn) {
  if (!beneath(path) && !(other && beneath(other))) return 0;
  long number = __sync_add_and_fetch(&page->count, 1);
  char line[3 * PATH_MAX];
  snprintf(line, sizeof line, "%ld\t%d\t%s\t%s\t%s\t%ld\n", number, (int)getpid(), call, path, other ? other : "", size);
  note(line);
  int here = number == page->at, since = page->at && number >= page->at;
  if (!since || page->fault == NONE) return 0;
  if (page->fault == FAIL_EVER && !(kind & (CREATE | WRITE)) && page->error == ENOSPC) return 0;
  if (page->fault == FAIL_EVER) {
    page->fired++;
    if (torn && page->fired == 1 && kind == WRITE) *torn = 1;
    return page->error;
  }
  if (!here) return 0;
  page->fired++;
  switch (page->fault) {
    case KILL: syscall(SYS_kill, getpid(), SIGKILL); break;
    case TORN: if (torn) *torn = 1; return -1;
    case FAIL_ONCE: return page->error;
    case INTERRUPT: syscall(SYS_kill, getpid(), SIGINT); break;
    case VANISH: {
      char there[1100], away[1100];
      snprintf(there, sizeof there, "%s/made", page->folder);
      snprintf(away, sizeof away, "%s.away", page->folder);
      syscall(SYS_renameat, AT_FDCWD, there, AT_FDCWD, away);
    }
  }
  return 0;
}

#define REAL(type, name, ...) \
  static type (*real)(__VA_ARGS__); \
  if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)
#define FAILS(found) do { int e_ = (found); if (e_ > 0) { errno = e_; return -1; } } while (0)

#define OPENS(flags) ((flags) & (O_CREAT | O_TRUNC)) && !((flags) & O_DIRECTORY)
#define OPEN(name) \
  int name(const char *file, int flags, ...) { \
    REAL(int, name, const char *, int, ...); \
    va_list more; va_start(more, flags); int mode = va_arg(more, int); va_end(more); \
    if (page && OPENS(flags)) { \
      char path[PATH_MAX]; of_name(AT_FDCWD, file, path); \
      FAILS(boundary(CREATE, "create", path, NULL, 0, NULL)); \
    } \
    return real(file, flags, mode); \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
  int name(int folder, const char *file, int flags, ...) { \
    REAL(int, name, int, const char *, int, ...); \
    va_list more; va_start(more, flags); int mode = va_arg(more, int); va_end(more); \
    if (page && OPENS(flags)) { \
      char path[PATH_MAX]; of_name(folder, file, path); \
      FAILS(boundary(CREATE, "create", path, NULL, 0, NULL)); \
    } \
    return real(folder, file, flags, mode); \
  }
OPENAT(openat)
OPENAT(openat64)

#define CREAT(name) \
  int name(const char *file, mode_t mode) { \
    REAL(int, name, const char *, mode_t); \
    if (page) { \
      char path[PATH_MAX]; of_name(AT_FDCWD, file, path); \
      FAILS(boundary(CREATE, "create", path, NULL, 0, NULL)); \
    } \
    return real(file, mode); \
  }
CREAT(creat)
CREAT(creat64)

/* A write; torn, half of it is made, and the process ends or the rest fails. */
#define WRITES(fd, size, half) \
  if (page) { \
    char path[PATH_MAX]; of_fd(fd, path); int torn = 0; \
    int failed = boundary(WRITE, "write", path, NULL, (long)(size), &torn); \
    if (torn) { half; if (failed < 0) syscall(SYS_kill, getpid(), SIGKILL); } \
    FAILS(failed); \
  }

ssize_t write(int fd, const void *data, size_t size) {
  REAL(ssize_t, write, int, const void *, size_t);
  WRITES(fd, size, real(fd, data, size / 2))
  return real(fd, data, size);
}

#define PWRITE(name, offset_t) \
  ssize_t name(int fd, const void *data, size_t size, offset_t at) { \
    REAL(ssize_t, name, int, const void *, size_t, offset_t); \
    WRITES(fd, size, real(fd, data, size / 2, at)) \
    return real(fd, data, size, at); \
  }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t writev(int fd, const struct iovec *parts, int count) {
  REAL(ssize_t, writev, int, const struct iovec *, int);
  WRITES(fd, count, real(fd, parts, count / 2))
  return real(fd, parts, count);
}

/* Callers ask for more than there is: half of what a file holds is meant. */
static size_t held(int fd, size_t size) {
  struct stat told;
  return fstat(fd, &told) || told.st_size > (off_t)size ? size : (size_t)told.st_size;
}

ssize_t copy_file_range(int from, off64_t *a, int to, off64_t *b, size_t size, unsigned flags) {
  REAL(ssize_t, copy_file_range, int, off64_t *, int, off64_t *, size_t, unsigned);
  WRITES(to, size, real(from, a, to, b, held(from, size) / 2, flags))
  return real(from, a, to, b, size, flags);
}

#define SENDFILE(name, offset_t) \
  ssize_t name(int to, int from, offset_t *at, size_t size) { \
    REAL(ssize_t, name, int, int, offset_t *, size_t); \
    WRITES(to, size, real(to, from, at, held(from, size) / 2)) \
    return real(to, from, at, size); \
  }
SENDFILE(sendfile, off_t)
SENDFILE(sendfile64, off64_t)

#define ON_FD(kind, name, ...) \
  if (page) { char path[PATH_MAX]; of_fd(fd, path); FAILS(boundary(kind, #name, path, NULL, 0, NULL)); }
int fsync(int fd) { REAL(int, fsync, int); ON_FD(SYNC, fsync) return real(fd); }
int fdatasync(int fd) { REAL(int, fdatasync, int); ON_FD(SYNC, fdatasync) return real(fd); }
int ftruncate(int fd, off_t size) { REAL(int, ftruncate, int, off_t); ON_FD(WRITE, ftruncate) return real(fd, size); }
int ftruncate64(int fd, off64_t size) { REAL(int, ftruncate64, int, off64_t); ON_FD(WRITE, ftruncate) return real(fd, size); }

#define ON_NAME(name) \
  if (page) { char path[PATH_MAX]; of_name(AT_FDCWD, file, path); FAILS(boundary(NAMES, #name, path, NULL, 0, NULL)); }
int unlink(const char *file) { REAL(int, unlink, const char *); ON_NAME(remove) return real(file); }
int rmdir(const char *file) { REAL(int, rmdir, const char *); ON_NAME(rmdir) return real(file); }

#define ON_NAME_IN(kind, name) \
  if (page) { char path[PATH_MAX]; of_name(folder, file, path); FAILS(boundary(kind, #name, path, NULL, 0, NULL)); }
int unlinkat(int folder, const char *file, int flags) {
  REAL(int, unlinkat, int, const char *, int); ON_NAME_IN(NAMES, remove) return real(folder, file, flags);
}
int mkdirat(int folder, const char *file, mode_t mode) {
  REAL(int, mkdirat, int, const char *, mode_t); ON_NAME_IN(CREATE, mkdir) return real(folder, file, mode);
}
int mkdir(const char *file, mode_t mode) {
  REAL(int, mkdir, const char *, mode_t); int folder = AT_FDCWD; ON_NAME_IN(CREATE, mkdir) return real(file, mode);
}

#define BOTH(folder, file, folder2, file2, name) \
  if (page) { char path[PATH_MAX], other[PATH_MAX]; of_name(folder, file, path); of_name(folder2, file2, other); \
    FAILS(boundary(NAMES, #name, path, other, 0, NULL)); }
int rename(const char *a, const char *b) {
  REAL(int, rename, const char *, const char *); BOTH(AT_FDCWD, a, AT_FDCWD, b, rename) return real(a, b);
}
int renameat(int fa, const char *a, int fb, const char *b) {
  REAL(int, renameat, int, const char *, int, const char *); BOTH(fa, a, fb, b, rename) return real(fa, a, fb, b);
}
int renameat2(int fa, const char *a, int fb, const char *b, unsigned flags) {
  REAL(int, renameat2, int, const char *, int, const char *, unsigned); BOTH(fa, a, fb, b, rename)
  return real(fa, a, fb, b, flags);
}
int link(const char *a, const char *b) {
  REAL(int, link, const char *, const char *); BOTH(AT_FDCWD, a, AT_FDCWD, b, link) return real(a, b);
}
int symlink(const char *a, const char *b) {
  REAL(int, symlink, const char *, const char *); BOTH(AT_FDCWD, b, AT_FDCWD, b, symlink) return real(a, b);
}
