// Memory for inputs and outputs that shows who goes beyond it: it ends at a page that cannot be touched.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace potluck {

constexpr uint8_t kPoison = 0xa5;

// `bytes` of poison, and poison before them. A multiple of 64 bytes is 64-byte aligned.
class FencedBytes {
 public:
  explicit FencedBytes(size_t bytes);
  ~FencedBytes();
  FencedBytes(const FencedBytes&) = delete;
  FencedBytes& operator=(const FencedBytes&) = delete;

  uint8_t* data() const { return data_; }
  // Nothing was written before the first byte.
  bool front_is_intact() const;

 private:
  uint8_t* base_;
  size_t mapped_;
  uint8_t* data_;
};

template <class T>
class Fenced {
 public:
  explicit Fenced(size_t count) : bytes_(count * sizeof(T)), count_(count) {}
  T* data() const { return reinterpret_cast<T*>(bytes_.data()); }
  size_t size() const { return count_; }
  T& operator[](size_t i) const { return data()[i]; }

 private:
  FencedBytes bytes_;
  size_t count_;
};

}  // namespace potluck
