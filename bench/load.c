/*
 * load: the micro benchmark that every mounted subject runs.
 *
 *   load ROW DIR [--ms N] [--n N] [--tag T]
 *
 * DIR is the root of the mounted union (or the plain directory). Each row prints one line on stdout,
 * "NANOSECONDS_PER_OPERATION OPERATIONS"; anything that fails prints a reason on stderr and exits 1.
 *
 * Rows that change nothing run for --ms milliseconds; rows that make or destroy names do --n of them.
 * What a row needs is made before its clock starts and removed after the clock has stopped. The tag
 * keeps the names of two runs apart, so that no run meets a name the caches know from an earlier one.
 *
 * The lower tree this expects is made by the rows "mk-*" below, on the host, before anything is mounted.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define MIB (1024L * 1024L)
#define PAGE 4096L
#define SMALL_FILES 1000      /* files of 4 KiB in d1000 */
#define RANDOM_FILE_MIB 64    /* fits every cache, and is larger than the processor's */
#define CHECK_CLOCK_EVERY 64  /* operations between two looks at the clock */

static const char *root;
static const char *tag = "t";
static long budget_ms = 200;
static long count = 1000;
static char page[MIB];

static void die(const char *what) {
  fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
  exit(1);
}

static int64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void report(int64_t ns, long operations) {
  printf("%.2f %ld\n", (double)ns / (double)operations, operations);
}

static char *path_of(const char *format, ...) __attribute__((format(printf, 1, 2)));
static char *path_of(const char *format, ...) {
  static char slots[4][4096];
  static int next;
  char *out = slots[next++ & 3];
  int head = snprintf(out, 4096, "%s/", root);
  va_list list;
  va_start(list, format);
  vsnprintf(out + head, 4096 - head, format, list);
  va_end(list);
  return out;
}

/* xorshift: the same sequence in every run, cheap against a 400 ns system call. */
static uint64_t seed = 88172645463325252ULL;
static uint64_t next_random(void) {
  seed ^= seed << 13;
  seed ^= seed >> 7;
  seed ^= seed << 17;
  return seed;
}

static int must_open(const char *path, int flags, mode_t mode) {
  int fd = open(path, flags | O_CLOEXEC, mode);
  if (fd < 0) die(path);
  return fd;
}

static void must_write(int fd, const char *data, long bytes) {
  while (bytes > 0) {
    ssize_t n = write(fd, data, bytes);
    if (n <= 0) die("write");
    data += n;
    bytes -= n;
  }
}

static void make_file(const char *path, long bytes) {
  int fd = must_open(path, O_CREAT | O_WRONLY | O_TRUNC, 0644);
  for (long at = 0; at < bytes; at += MIB) must_write(fd, page, bytes - at < MIB ? bytes - at : MIB);
  if (close(fd)) die(path);
}

/* Runs op(i) until the budget is used up; i counts from 0. */
static void timed(void (*op)(long)) {
  int64_t start = now(), end = start + budget_ms * 1000000LL, at = start;
  long done = 0;
  while (at < end) {
    for (int i = 0; i < CHECK_CLOCK_EVERY; i++) op(done++);
    at = now();
  }
  report(at - start, done);
}

/* Runs op(0) to op(count - 1). */
static void counted(void (*op)(long)) {
  int64_t start = now();
  for (long i = 0; i < count; i++) op(i);
  report(now() - start, count);
}

static void repeat(void (*op)(long), long n) {
  for (long i = 0; i < n; i++) op(i);
}

/* ---- rows that read names ---- */

static void op_stat(long i) {
  struct stat st;
  if (stat(path_of("d1000/f%ld", i % SMALL_FILES), &st)) die("stat");
}
static void row_stat(void) { repeat(op_stat, SMALL_FILES); timed(op_stat); }

/* Past the one second for which most peers let the kernel remember. */
static void row_stat_later(void) {
  repeat(op_stat, SMALL_FILES);
  usleep(1500 * 1000);
  int64_t start = now();
  repeat(op_stat, SMALL_FILES);
  report(now() - start, SMALL_FILES);
}

static void op_missing(long i) {
  struct stat st;
  if (!stat(path_of("d1000/missing%ld", i % 100), &st) || errno != ENOENT) die("missing name found");
}
static void row_missing(void) { repeat(op_missing, 100); timed(op_missing); }

static void op_open_read(long i) {
  int fd = must_open(path_of("d1000/f%ld", i % SMALL_FILES), O_RDONLY, 0);
  if (pread(fd, page, PAGE, 0) != PAGE) die("pread");
  close(fd);
}
static void row_open_read(void) { repeat(op_open_read, SMALL_FILES); timed(op_open_read); }

static long list(const char *path) {
  DIR *dir = opendir(path);
  if (!dir) die(path);
  long entries = 0;
  while (readdir(dir)) entries++;
  closedir(dir);
  return entries;
}
static void row_readdir(const char *name) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", root, name);
  list(path);
  list(path);
  int64_t start = now(), end = start + budget_ms * 1000000LL, at = start;
  long entries = 0;
  for (; at < end; at = now()) entries += list(path);
  report(at - start, entries);
}
static void row_readdir1000(void) { row_readdir("d1000"); }
static void row_readdir20(void) { row_readdir("d20"); }

static long walk(int parent, const char *name) {
  int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) die(name);
  DIR *dir = fdopendir(fd);
  long entries = 0;
  for (struct dirent *e; (e = readdir(dir));) {
    if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
    struct stat st;
    if (fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW)) die(e->d_name);
    entries++;
    if (S_ISDIR(st.st_mode)) entries += walk(fd, e->d_name);
  }
  closedir(dir);
  return entries;
}
static void row_walk(void) {
  char path[4096];
  snprintf(path, sizeof path, "%s/include", root);
  int64_t start = now();
  long entries = walk(AT_FDCWD, path);
  report(now() - start, entries);
}
static void row_walk_again(void) {
  char path[4096];
  snprintf(path, sizeof path, "%s/include", root);
  walk(AT_FDCWD, path);
  row_walk();
}

/* ---- growth: each name asked for once, in a mount that knows none; names as mk-many makes them ---- */

static void row_cold_stat(void) {
  struct stat st;
  int64_t start = now();
  for (long i = 0; i < count; i++) if (stat(path_of("n0/file-%ld", i), &st)) die("stat");
  report(now() - start, count);
}
static void row_cold_missing(void) {
  struct stat st;
  int64_t start = now();
  for (long i = 0; i < count; i++) {
    if (!stat(path_of("n0/missing-%s-%ld", tag, i), &st) || errno != ENOENT) die("missing name found");
  }
  report(now() - start, count);
}

/* ---- the empty round trip: requests that no kernel answers from a cache ---- */

static void op_statfs(long i) {
  struct statfs st;
  (void)i;
  if (statfs(root, &st)) die("statfs");
}
static void row_statfs(void) { repeat(op_statfs, 100); timed(op_statfs); }

static void op_getxattr(long i) {
  char value[64];
  (void)i;
  if (getxattr(path_of("d1000/f0"), "user.missing", value, sizeof value) >= 0) die("xattr found");
}
static void row_getxattr(void) { repeat(op_getxattr, 100); timed(op_getxattr); }

/* ---- rows that make and destroy names ---- */

static const char *own_dir(void) {
  char *dir = path_of("w-%s", tag);
  if (mkdir(dir, 0755)) die(dir);
  return dir;
}
static void drop_own_dir(void) {
  if (rmdir(path_of("w-%s", tag))) die("rmdir of the row's directory");
}
static void op_create(long i) {
  int fd = must_open(path_of("w-%s/f%ld", tag, i), O_CREAT | O_EXCL | O_WRONLY, 0644);
  must_write(fd, page, PAGE);
  if (close(fd)) die("close");
}
static void op_unlink(long i) { if (unlink(path_of("w-%s/f%ld", tag, i))) die("unlink"); }
static void op_unlink_renamed(long i) { if (unlink(path_of("w-%s/g%ld", tag, i))) die("unlink"); }
static void op_rename(long i) {
  if (rename(path_of("w-%s/f%ld", tag, i), path_of("w-%s/g%ld", tag, i))) die("rename");
}
static void op_chmod(long i) { if (chmod(path_of("w-%s/f%ld", tag, i), 0600)) die("chmod"); }
static void op_mkdir(long i) { if (mkdir(path_of("w-%s/d%ld", tag, i), 0755)) die("mkdir"); }
static void op_rmdir(long i) { if (rmdir(path_of("w-%s/d%ld", tag, i))) die("rmdir"); }

static void row_create(void) { own_dir(); counted(op_create); repeat(op_unlink, count); drop_own_dir(); }
static void row_unlink(void) { own_dir(); repeat(op_create, count); counted(op_unlink); drop_own_dir(); }
static void row_rename(void) {
  own_dir(); repeat(op_create, count); counted(op_rename); repeat(op_unlink_renamed, count); drop_own_dir();
}
static void row_chmod(void) {
  own_dir(); repeat(op_create, count); counted(op_chmod); repeat(op_unlink, count); drop_own_dir();
}
static void row_mkdir(void) { own_dir(); counted(op_mkdir); repeat(op_rmdir, count); drop_own_dir(); }
static void row_rmdir(void) { own_dir(); repeat(op_mkdir, count); counted(op_rmdir); drop_own_dir(); }

/* ---- the same on names of the lower tree: whiteouts and copy-up; a fresh upper each time ---- */

static void op_unlink_lower(long i) { if (unlink(path_of("pool/u%ld", i))) die("unlink"); }
static void op_chmod_lower(long i) { if (chmod(path_of("pool/c%ld", i), 0600)) die("chmod"); }
static void op_write_lower(long i) {
  int fd = must_open(path_of("pool/w%ld", i), O_WRONLY, 0);
  if (pwrite(fd, "x", 1, 100) != 1) die("pwrite");
  if (close(fd)) die("close");
}
static void row_unlink_lower(void) { counted(op_unlink_lower); }
static void row_chmod_lower(void) { counted(op_chmod_lower); }
static void row_write_lower(void) { counted(op_write_lower); }

/* Durable, because some copy up at the write and some when the page is written back. */
static void copy_up(const char *name) {
  int64_t start = now();
  int fd = must_open(path_of("%s", name), O_WRONLY, 0);
  if (pwrite(fd, "x", 1, 100) != 1) die("pwrite");
  if (fsync(fd)) die("fsync");
  if (close(fd)) die("close");
  report(now() - start, 1);
}
static void row_copy_up_sparse(void) { copy_up("sparse"); }
static void row_copy_up_dense(void) { copy_up("dense"); }

/* ---- data ---- */

static int data_fd;

static void open_own_file(void) {
  char *path = path_of("data-%s", tag);
  make_file(path, RANDOM_FILE_MIB * MIB);
  data_fd = must_open(path, O_RDWR, 0);
  for (long at = 0; at < RANDOM_FILE_MIB; at++) {
    if (pread(data_fd, page, MIB, at * MIB) != MIB) die("pread");
  }
}
static void drop_own_file(void) {
  close(data_fd);
  if (unlink(path_of("data-%s", tag))) die("unlink");
}
static long random_offset(void) {
  return (long)(next_random() % (RANDOM_FILE_MIB * MIB / PAGE)) * PAGE;
}
static void op_random_read(long i) {
  (void)i;
  if (pread(data_fd, page, PAGE, random_offset()) != PAGE) die("pread");
}
static void op_random_write(long i) {
  (void)i;
  if (pwrite(data_fd, page, PAGE, random_offset()) != PAGE) die("pwrite");
}
static void row_random_read(void) { open_own_file(); timed(op_random_read); drop_own_file(); }
static void row_random_write(void) { open_own_file(); timed(op_random_write); drop_own_file(); }

static void write_big(int sync) {
  char *path = path_of("big-%s", tag);
  int64_t start = now();
  int fd = must_open(path, O_CREAT | O_EXCL | O_WRONLY, 0644);
  for (long i = 0; i < count; i++) must_write(fd, page, MIB);
  if (sync && fsync(fd)) die("fsync");
  if (close(fd)) die("close");
  report(now() - start, count);
  if (unlink(path)) die("unlink");
}
static void row_seq_write(void) { write_big(0); }
static void row_seq_write_sync(void) { write_big(1); }

static void row_seq_read(void) {
  int64_t start = now();
  int fd = must_open(path_of("dense"), O_RDONLY, 0);
  long calls = 0;
  for (ssize_t n; (n = read(fd, page, MIB)); calls++) if (n != MIB) die("read");
  report(now() - start, calls);
}
static void row_seq_reread(void) {
  int fd = must_open(path_of("dense"), O_RDONLY, 0);
  while (read(fd, page, MIB) > 0) {}
  close(fd);
  row_seq_read();
}

static char *map_own_file(void) {
  char *map = mmap(NULL, RANDOM_FILE_MIB * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, data_fd, 0);
  if (map == MAP_FAILED) die("mmap");
  return map;
}
static void row_mmap_store(void) {
  open_own_file();
  if (fsync(data_fd)) die("fsync");
  char *map = map_own_file();
  long pages = RANDOM_FILE_MIB * MIB / PAGE;
  int64_t start = now();
  for (long i = 0; i < pages; i++) map[i * PAGE] = 1;
  report(now() - start, pages);
  drop_own_file();
}
static void row_mmap_read(void) {
  int fd = must_open(path_of("dense"), O_RDONLY, 0);
  struct stat st;
  if (fstat(fd, &st)) die("fstat");
  volatile char *map = mmap(NULL, st.st_size, PROT_READ, MAP_SHARED, fd, 0);
  if (map == MAP_FAILED) die("mmap");
  int64_t start = now();
  long pages = st.st_size / PAGE, sum = 0;
  for (long i = 0; i < pages; i++) sum += map[i * PAGE];
  report(now() - start, pages + (sum == -1));
}
static void row_msync(void) {
  open_own_file();
  if (fsync(data_fd)) die("fsync");
  char *map = map_own_file();
  long calls = RANDOM_FILE_MIB;
  int64_t start = now();
  for (long i = 0; i < calls; i++) {
    map[i * MIB] = 1;
    if (msync(map + i * MIB, PAGE, MS_SYNC)) die("msync");
  }
  report(now() - start, calls);
  drop_own_file();
}
static void row_msync_mib(void) {
  open_own_file();
  if (fsync(data_fd)) die("fsync");
  char *map = map_own_file();
  for (long i = 0; i < RANDOM_FILE_MIB * MIB; i += PAGE) map[i] = 1;
  int64_t start = now();
  if (msync(map, RANDOM_FILE_MIB * MIB, MS_SYNC)) die("msync");
  report(now() - start, RANDOM_FILE_MIB);
  drop_own_file();
}

/* ---- making the lower tree, on the host ---- */

static void row_mk_small(void) {
  for (long i = 0; i < count; i++) make_file(path_of("%s%ld", tag, i), PAGE);
  report(1, 1);
}
/* A tree of `count` empty files, a thousand to a directory: for the memory row. */
static void row_mk_many(void) {
  for (long i = 0; i < count; i++) {
    if (i % 1000 == 0 && mkdir(path_of("n%ld", i / 1000), 0755)) die("mkdir");
    close(must_open(path_of("n%ld/file-%ld", i / 1000, i), O_CREAT | O_WRONLY, 0644));
  }
  report(1, 1);
}
static void row_mk_dense(void) {
  for (long i = 0; i < MIB; i++) page[i] = (char)next_random();
  make_file(path_of("dense"), count * MIB);
  report(1, 1);
}
static void row_mk_sparse(void) {
  int fd = must_open(path_of("sparse"), O_CREAT | O_WRONLY, 0644);
  if (ftruncate(fd, 1024 * MIB)) die("ftruncate");
  for (long at = 0; at < 1024; at += 256) if (pwrite(fd, page, PAGE, at * MIB) != PAGE) die("pwrite");
  close(fd);
  report(1, 1);
}

static const struct { const char *name; void (*run)(void); } rows[] = {
  {"stat", row_stat}, {"stat-later", row_stat_later}, {"missing", row_missing}, {"open-read", row_open_read},
  {"readdir-1000", row_readdir1000}, {"readdir-20", row_readdir20},
  {"walk", row_walk}, {"walk-again", row_walk_again},
  {"cold-stat", row_cold_stat}, {"cold-missing", row_cold_missing},
  {"statfs", row_statfs}, {"getxattr", row_getxattr},
  {"create", row_create}, {"unlink", row_unlink}, {"rename", row_rename}, {"chmod", row_chmod},
  {"mkdir", row_mkdir}, {"rmdir", row_rmdir},
  {"unlink-lower", row_unlink_lower}, {"chmod-lower", row_chmod_lower}, {"write-lower", row_write_lower},
  {"copy-up-sparse", row_copy_up_sparse}, {"copy-up-dense", row_copy_up_dense},
  {"random-read", row_random_read}, {"random-write", row_random_write},
  {"seq-write", row_seq_write}, {"seq-write-sync", row_seq_write_sync},
  {"seq-read", row_seq_read}, {"seq-reread", row_seq_reread},
  {"mmap-store", row_mmap_store}, {"mmap-read", row_mmap_read},
  {"msync", row_msync}, {"msync-mib", row_msync_mib},
  {"mk-small", row_mk_small}, {"mk-many", row_mk_many}, {"mk-dense", row_mk_dense}, {"mk-sparse", row_mk_sparse},
};

int main(int argc, char **argv) {
  if (argc < 3) { fprintf(stderr, "usage: load ROW DIR [--ms N] [--n N] [--tag T]\n"); return 2; }
  root = argv[2];
  for (int i = 3; i + 1 < argc; i += 2) {
    if (!strcmp(argv[i], "--ms")) budget_ms = atol(argv[i + 1]);
    else if (!strcmp(argv[i], "--n")) count = atol(argv[i + 1]);
    else if (!strcmp(argv[i], "--tag")) tag = argv[i + 1];
    else { fprintf(stderr, "load: unknown option %s\n", argv[i]); return 2; }
  }
  memset(page, 'p', sizeof page);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    if (!strcmp(rows[i].name, argv[1])) { rows[i].run(); return 0; }
  }
  fprintf(stderr, "load: unknown row %s\n", argv[1]);
  return 2;
}
