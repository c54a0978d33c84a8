// Threads that read tiles. A tile longer than a piece is read by several threads at once; each checks its own piece
// while the bytes are still in its cache.
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

struct TileRead {
  // What to read.
  std::shared_ptr<TileFile> file;
  uint64_t file_offset = 0;
  size_t bytes = 0;
  uint8_t* to = nullptr;
  uint32_t expected_crc = 0;
  void* owner = nullptr;  // of the caller

  // What came of it.
  enum class Result { ok, system_error, short_read, wrong_crc };
  Result result = Result::ok;
  int system_error = 0;
  uint64_t bytes_read = 0;
  uint32_t actual_crc = 0;
  double microseconds = 0;  // from the first piece taken by a thread to the last piece checked

  // Of TileReader, under its lock.
  std::vector<uint32_t> piece_crcs;
  size_t pieces_left = 0;
  bool started = false;
  std::chrono::steady_clock::time_point start;
};

class TileReader {
 public:
  // Called on a thread of the reader when a read ended, whatever its result.
  using Done = void (*)(void* context, TileRead* read);

  TileReader(Done done, void* context) : done_(done), context_(context) {}
  ~TileReader() { stop(); }

  // Starts the threads; false when the system has none left.
  bool start(int threads);
  // The reader does not own `read`; it is the caller's again at `done`.
  void submit(TileRead* read);
  // Ends the threads after the pieces they are at, and returns the reads whose `done` was not called.
  std::vector<TileRead*> stop();

 private:
  struct Piece {
    TileRead* read;
    size_t index;
  };

  size_t piece_bytes(size_t tile_bytes) const;
  void work();
  void read_piece(Piece piece, std::unique_lock<std::mutex>& lock);
  void finish(TileRead* read);

  Done done_;
  void* context_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Piece> queue_;
  std::vector<TileRead*> open_;  // submitted, not done
  std::vector<std::thread> threads_;
  bool stopping_ = false;
};

}  // namespace potluck
