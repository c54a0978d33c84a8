#include "tile_reader.h"

#include <algorithm>
#include <system_error>

#include "crc32c.h"

namespace potluck {
namespace {

using Clock = std::chrono::steady_clock;

// Above this a read no longer gets faster, and its bytes no longer fit a core's caches until they are checked.
constexpr size_t kMostAtOnce = size_t(4) << 20;

// Walks through the parts of a run as its bytes arrive.
class Check {
 public:
  explicit Check(TileRead* read) : read_(*read) {}

  // False when a tile that ended within these bytes is not what it should be.
  bool add(const uint8_t* data, size_t bytes) {
    while (bytes > 0) {
      const TilePart& part = read_.parts[read_.part];
      const size_t now = std::min(bytes, part.bytes - done_);
      if (part.checked) crc_ = crc32c(crc_, data, now);
      data += now;
      bytes -= now;
      done_ += now;
      if (done_ < part.bytes) break;
      if (part.checked && crc_ != part.crc32c) {
        read_.actual_crc = crc_;
        return false;
      }
      read_.part++;
      done_ = 0;
      crc_ = 0;
    }
    return true;
  }

  size_t bytes_of_part() const { return done_; }

 private:
  TileRead& read_;
  size_t done_ = 0;  // bytes of the current part
  uint32_t crc_ = 0;
};

void read_and_check(TileRead* read) {
  Check check(read);
  for (size_t at = 0; at < read->bytes;) {
    const size_t bytes = std::min(kMostAtOnce, read->bytes - at);
    int error = 0;
    const size_t got = read->file->read(read->file_offset + at, bytes, read->to + at, &error);
    if (!check.add(read->to + at, got)) {
      read->result = TileRead::Result::wrong_crc;
      return;
    }
    if (got < bytes) {
      read->result = error != 0 ? TileRead::Result::system_error : TileRead::Result::short_read;
      read->system_error = error;
      read->bytes_read = check.bytes_of_part();
      return;
    }
    at += got;
  }
}

}  // namespace

bool TileReader::start(int threads) {
  try {
    for (int i = 0; i < threads; i++) threads_.emplace_back([this] { work(); });
  } catch (const std::system_error&) {
    stop();
    return false;
  }
  return true;
}

void TileReader::submit(TileRead* read) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    queue_.push_back(read);
  }
  wake_.notify_one();
}

void TileReader::work() {
  for (;;) {
    TileRead* read;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (stopping_) return;
      read = queue_.front();
      queue_.pop_front();
    }
    const Clock::time_point start = Clock::now();
    const double cpu = thread_cpu_microseconds();
    read_and_check(read);
    read->cpu_microseconds = thread_cpu_microseconds() - cpu;
    read->microseconds = std::chrono::duration<double, std::micro>(Clock::now() - start).count();
    done_(context_, read);
  }
}

std::vector<TileRead*> TileReader::stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  std::vector<TileRead*> left(queue_.begin(), queue_.end());
  queue_.clear();
  return left;
}

}  // namespace potluck
