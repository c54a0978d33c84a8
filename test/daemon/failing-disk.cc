// A disk that fails, for a process that has this library preloaded: what is asked for is in the file `fault` beside a file that is
// read or written, one line:
//   eio COUNT FROM TO   the first COUNT reads (0: all) that touch bytes FROM to TO of the file fail with EIO
//   slow TIMES          every read takes that many times as long
//   full                every write fails with ENOSPC
// Each fault adds a byte to the file `faults` there.
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

namespace {

// Path of `name` in the folder of an open file.
bool beside(int file, const char* name, char* path, size_t room) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  const ssize_t length = readlink(link, path, room - 16);
  if (length <= 0 || path[0] != '/') return false;
  path[length] = 0;
  strcpy(strrchr(path, '/') + 1, name);
  return true;
}

struct Fault {
  char what[16] = "";
  long count = 0, from = 0, to = 0;
};

Fault fault_of(int file) {
  Fault fault;
  char path[4096], text[128];
  if (!beside(file, "fault", path, sizeof path)) return fault;
  const int control = open(path, O_RDONLY | O_CLOEXEC);
  if (control < 0) return fault;
  const ssize_t length = syscall(SYS_read, control, text, sizeof text - 1);
  close(control);
  if (length <= 0) return fault;
  text[length] = 0;
  sscanf(text, "%15s %ld %ld %ld", fault.what, &fault.count, &fault.from, &fault.to);
  return fault;
}

// Counts a fault; its number, from 1 on.
long counted(int file) {
  char path[4096];
  if (!beside(file, "faults", path, sizeof path)) return 0;
  const int faults = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (faults < 0 || syscall(SYS_write, faults, "x", 1) != 1) return 0;
  const long number = lseek(faults, 0, SEEK_CUR);
  close(faults);
  return number;
}

ssize_t read_at(int file, void* to, size_t bytes, off_t offset) {
  const int before = errno;
  const Fault fault = fault_of(file);
  errno = before;
  if (strcmp(fault.what, "eio") == 0 && offset < fault.to && offset + off_t(bytes) > fault.from) {
    const long number = counted(file);
    if (fault.count == 0 || number <= fault.count) {
      errno = EIO;
      return -1;
    }
  }
  timespec start, end;
  clock_gettime(CLOCK_MONOTONIC, &start);
  const ssize_t got = syscall(SYS_pread64, file, to, bytes, offset);
  if (got > 0 && strcmp(fault.what, "slow") == 0) {
    const int after = errno;
    clock_gettime(CLOCK_MONOTONIC, &end);
    const long took = (end.tv_sec - start.tv_sec) * 1000000000L + end.tv_nsec - start.tv_nsec;
    const long more = took * (fault.count - 1);
    const timespec pause = {more / 1000000000L, more % 1000000000L};
    nanosleep(&pause, nullptr);
    counted(file);
    errno = after;
  }
  return got;
}

bool is_full(int file) {
  const int before = errno;
  const bool full = strcmp(fault_of(file).what, "full") == 0 && counted(file) > 0;
  errno = full ? ENOSPC : before;
  return full;
}

}  // namespace

extern "C" {
ssize_t pread(int file, void* to, size_t bytes, off_t offset) { return read_at(file, to, bytes, offset); }
ssize_t pread64(int file, void* to, size_t bytes, off_t offset) { return read_at(file, to, bytes, offset); }
ssize_t pwrite(int file, const void* from, size_t bytes, off_t offset) {
  return is_full(file) ? -1 : syscall(SYS_pwrite64, file, from, bytes, offset);
}
ssize_t pwrite64(int file, const void* from, size_t bytes, off_t offset) {
  return is_full(file) ? -1 : syscall(SYS_pwrite64, file, from, bytes, offset);
}
}
