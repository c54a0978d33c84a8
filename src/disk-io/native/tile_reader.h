// Threads that read runs of tiles: each run is one long read of neighbouring tiles, which the thread that read it
// checks tile by tile while the bytes are still in its cache.
#pragma once
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "tile_file.h"

namespace potluck {

// One tile of a run.
struct TilePart {
  size_t bytes;
  uint32_t crc32c;
  bool checked;  // false: whatever is read is right (for measuring the disk alone)
};

struct TileRead {
  // What to read.
  std::shared_ptr<TileFile> file;
  uint64_t file_offset = 0;
  std::vector<TilePart> parts;  // one behind the other
  size_t bytes = 0;             // sum of the parts
  uint8_t* to = nullptr;
  void* owner = nullptr;  // of the caller

  // What came of it.
  enum class Result { ok, system_error, short_read, wrong_crc };
  Result result = Result::ok;
  size_t part = 0;  // the tile that could not be read
  int system_error = 0;
  uint64_t bytes_read = 0;  // of that tile
  uint32_t actual_crc = 0;
  double microseconds = 0;      // from the moment a thread took it to the end of the last check
  double cpu_microseconds = 0;  // of that thread, over the same time
};

class TileReader {
 public:
  // Called on a thread of the reader when a read ended, whatever its result.
  using Done = void (*)(void* context, TileRead* read);

  TileReader(Done done, void* context) : done_(done), context_(context) {}
  ~TileReader() { stop(); }

  // Starts the threads; false when the system has none left.
  bool start(int threads);
  // The reader does not own `read`; it is the caller's again at `done`. Reads begin in the order they come in.
  void submit(TileRead* read);
  // Ends the threads after the reads they are at, and returns the reads whose `done` was not called.
  std::vector<TileRead*> stop();

 private:
  void work();

  Done done_;
  void* context_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<TileRead*> queue_;
  std::vector<std::thread> threads_;
  bool stopping_ = false;
};

}  // namespace potluck
