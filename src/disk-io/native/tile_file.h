// A file that tiles are read from, past the page cache where the file system can.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace potluck {

// Offsets, lengths and addresses of unbuffered reads are multiples of this.
constexpr size_t kDiskAlignment = 4096;

class TileFile {
 public:
  // Opens a regular file for reading; nullptr with the system's error number where that fails. Unbuffered when
  // `want_direct`; a file system that refuses (EINVAL) is read through its cache instead, and `direct()` says so.
  static std::shared_ptr<TileFile> open(const std::string& path, bool want_direct, int* error);
  ~TileFile();
  TileFile(const TileFile&) = delete;
  TileFile& operator=(const TileFile&) = delete;

  bool direct() const { return direct_; }
  // 'O_DIRECT', 'F_NOCACHE', 'FILE_FLAG_NO_BUFFERING' or 'buffered'.
  const char* how() const;

  // Reads until `bytes` are there or the file ends; returns the bytes read, and the system's error number or 0.
  // Safe from several threads at once.
  size_t read(uint64_t offset, size_t bytes, uint8_t* to, int* error) const;
  // Reads where all of it lies in the system's page cache, without ever waiting for the disk; false where it does not, where
  // the file is unbuffered, or where the system cannot tell.
  bool read_cached(uint64_t offset, size_t bytes, uint8_t* to) const;

 private:
  TileFile(intptr_t handle, bool direct) : handle_(handle), direct_(direct) {}
  intptr_t handle_;  // file descriptor, or HANDLE
  bool direct_;
};

// Processor time of the calling thread; 0 where the system does not tell.
double thread_cpu_microseconds();

}  // namespace potluck
