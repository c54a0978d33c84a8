// Untested.
#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>

#include <algorithm>

#include "tile_file.h"

namespace potluck {
namespace {

constexpr size_t kMostBytesAtOnce = size_t(1) << 30;

bool widen(const std::string& path, std::wstring* out) {
  const int length = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path.data(), int(path.size()), nullptr, 0);
  out->resize(size_t(length));
  return length > 0 &&
         MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path.data(), int(path.size()), out->data(), length) == length;
}

HANDLE open_with(const std::wstring& path, DWORD flags) {
  const DWORD share = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;
  return CreateFileW(path.c_str(), GENERIC_READ, share, nullptr, OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL | flags, nullptr);
}

}  // namespace

std::shared_ptr<TileFile> TileFile::open(const std::string& path, bool want_direct, int* error) {
  std::wstring wide;
  if (!widen(path, &wide)) {
    *error = ERROR_INVALID_NAME;
    return nullptr;
  }
  bool direct = want_direct;
  HANDLE file = open_with(wide, want_direct ? FILE_FLAG_NO_BUFFERING : 0);
  if (file == INVALID_HANDLE_VALUE && want_direct && GetLastError() == ERROR_INVALID_PARAMETER) {
    direct = false;
    file = open_with(wide, 0);
  }
  if (file == INVALID_HANDLE_VALUE) {
    *error = int(GetLastError());
    return nullptr;
  }
  if (GetFileType(file) != FILE_TYPE_DISK) {
    *error = ERROR_INVALID_FUNCTION;
    CloseHandle(file);
    return nullptr;
  }
  return std::shared_ptr<TileFile>(new TileFile(reinterpret_cast<intptr_t>(file), direct));
}

TileFile::~TileFile() { CloseHandle(reinterpret_cast<HANDLE>(handle_)); }

const char* TileFile::how() const { return direct_ ? "FILE_FLAG_NO_BUFFERING" : "buffered"; }

size_t TileFile::read(uint64_t offset, size_t bytes, uint8_t* to, int* error) const {
  size_t done = 0;
  *error = 0;
  while (done < bytes) {
    OVERLAPPED place{};
    place.Offset = DWORD(offset + done);
    place.OffsetHigh = DWORD((offset + done) >> 32);
    DWORD n = 0;
    const DWORD asked = DWORD(std::min(bytes - done, kMostBytesAtOnce));
    if (!ReadFile(reinterpret_cast<HANDLE>(handle_), to + done, asked, &n, &place)) {
      const DWORD reason = GetLastError();
      if (reason != ERROR_HANDLE_EOF) *error = int(reason);
      break;
    }
    if (n == 0) break;
    done += n;
    if (direct_ && done % kDiskAlignment != 0) break;  // only the end of a file comes in part
  }
  return done;
}

bool TileFile::read_cached(uint64_t, size_t, uint8_t*) const { return false; }

double thread_cpu_microseconds() {
  FILETIME created, ended, kernel, user;
  if (!GetThreadTimes(GetCurrentThread(), &created, &ended, &kernel, &user)) return 0;
  // Units of 100 ns.
  const auto ticks = [](const FILETIME& t) { return double((uint64_t(t.dwHighDateTime) << 32) | t.dwLowDateTime); };
  return (ticks(kernel) + ticks(user)) / 10;
}

}  // namespace potluck
#endif
