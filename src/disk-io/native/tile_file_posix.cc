#ifndef _WIN32
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "tile_file.h"

namespace potluck {
namespace {

// No file system returns more for one call.
constexpr size_t kMostBytesAtOnce = size_t(1) << 30;

int open_plain(const std::string& path, int flags) {
  // O_NONBLOCK: a pipe at that path must not block the caller. It means nothing for regular files.
  return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | flags);
}

#ifdef O_DIRECT
// Some file systems accept O_DIRECT and refuse the first read.
bool refuses_direct_read(int file) {
  alignas(kDiskAlignment) uint8_t page[kDiskAlignment];
  return ::pread(file, page, sizeof page, 0) < 0 && errno == EINVAL;
}
#endif

// A file descriptor, or -1 with errno.
int open_unbuffered(const std::string& path) {
#if defined(O_DIRECT)
  const int file = open_plain(path, O_DIRECT);
  if (file < 0 || !refuses_direct_read(file)) return file;
  ::close(file);
  errno = EINVAL;
  return -1;
#elif defined(F_NOCACHE)  // macOS; untested
  const int file = open_plain(path, 0);
  if (file < 0 || ::fcntl(file, F_NOCACHE, 1) == 0) return file;
  ::close(file);
  errno = EINVAL;
  return -1;
#else
  (void)path;
  errno = EINVAL;
  return -1;
#endif
}

}  // namespace

std::shared_ptr<TileFile> TileFile::open(const std::string& path, bool want_direct, int* error) {
  bool direct = want_direct;
  int file = want_direct ? open_unbuffered(path) : open_plain(path, 0);
  if (file < 0 && want_direct && errno == EINVAL) {
    direct = false;
    file = open_plain(path, 0);
  }
  struct stat info;
  if (file < 0 || ::fstat(file, &info) != 0) {
    *error = errno;
    if (file >= 0) ::close(file);
    return nullptr;
  }
  if (!S_ISREG(info.st_mode)) {
    *error = S_ISDIR(info.st_mode) ? EISDIR : ENODEV;
    ::close(file);
    return nullptr;
  }
  return std::shared_ptr<TileFile>(new TileFile(file, direct));
}

TileFile::~TileFile() { ::close(int(handle_)); }

const char* TileFile::how() const {
#if defined(O_DIRECT)
  return direct_ ? "O_DIRECT" : "buffered";
#else
  return direct_ ? "F_NOCACHE" : "buffered";
#endif
}

size_t TileFile::read(uint64_t offset, size_t bytes, uint8_t* to, int* error) const {
  size_t done = 0;
  *error = 0;
  while (done < bytes) {
    const ssize_t n = ::pread(int(handle_), to + done, std::min(bytes - done, kMostBytesAtOnce), off_t(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) *error = errno;
    if (n <= 0) break;
    done += size_t(n);
    if (direct_ && done % kDiskAlignment != 0) break;  // only the end of a file comes in part
  }
#ifdef POSIX_FADV_DONTNEED
  if (!direct_) ::posix_fadvise(int(handle_), off_t(offset), off_t(bytes), POSIX_FADV_DONTNEED);
#endif
  return done;
}

bool TileFile::read_cached(uint64_t offset, size_t bytes, uint8_t* to) const {
#ifdef RWF_NOWAIT
  iovec into{to, bytes};
  return !direct_ && ::preadv2(int(handle_), &into, 1, off_t(offset), RWF_NOWAIT) == ssize_t(bytes);
#else
  (void)offset, (void)bytes, (void)to;
  return false;
#endif
}

double thread_cpu_microseconds() {
  timespec time{};
  if (::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time) != 0) return 0;
  return double(time.tv_sec) * 1e6 + double(time.tv_nsec) / 1e3;
}

}  // namespace potluck
#endif
