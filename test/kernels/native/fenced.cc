#include "fenced.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <vector>

namespace potluck {
namespace {

constexpr size_t kFront = 256;

size_t page_size() {
  static const size_t size = size_t(sysconf(_SC_PAGESIZE));
  return size;
}

// Memory that was given back, by its size: mapping is slow where a processor is emulated.
std::map<size_t, std::vector<uint8_t*>>& spare() {
  static std::map<size_t, std::vector<uint8_t*>> all;
  return all;
}

uint8_t* map(size_t bytes) {
  std::vector<uint8_t*>& ready = spare()[bytes];
  if (!ready.empty()) {
    uint8_t* base = ready.back();
    ready.pop_back();
    return base;
  }
  void* base = mmap(nullptr, bytes + page_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED || mprotect(static_cast<uint8_t*>(base) + bytes, page_size(), PROT_NONE) != 0) {
    std::perror("no memory");
    std::exit(2);
  }
  return static_cast<uint8_t*>(base);
}

}  // namespace

FencedBytes::FencedBytes(size_t bytes) {
  mapped_ = (bytes + kFront + page_size() - 1) / page_size() * page_size();
  base_ = map(mapped_);
  data_ = base_ + mapped_ - bytes;
  std::memset(data_ - kFront, kPoison, bytes + kFront);
}

FencedBytes::~FencedBytes() { spare()[mapped_].push_back(base_); }

bool FencedBytes::front_is_intact() const {
  for (size_t i = 1; i <= kFront; i++)
    if (data_[-ptrdiff_t(i)] != kPoison) return false;
  return true;
}

}  // namespace potluck
