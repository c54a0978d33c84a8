#include "tile_reader.h"

#include <algorithm>
#include <system_error>

#include "crc32c.h"

namespace potluck {
namespace {

using Clock = std::chrono::steady_clock;

// Below this a second request costs more than it saves; above, a piece no longer fits a core's cache.
constexpr size_t kLeastPiece = size_t(1) << 20;
constexpr size_t kMostPiece = size_t(4) << 20;

size_t aligned(size_t bytes) { return (bytes + kDiskAlignment - 1) / kDiskAlignment * kDiskAlignment; }

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

size_t TileReader::piece_bytes(size_t tile_bytes) const {
  return std::clamp(aligned(tile_bytes / threads_.size()), kLeastPiece, kMostPiece);
}

void TileReader::submit(TileRead* read) {
  const size_t piece = piece_bytes(read->bytes);
  const size_t count = (read->bytes + piece - 1) / piece;
  read->piece_crcs.assign(count, 0);
  read->pieces_left = count;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    open_.push_back(read);
    for (size_t i = 0; i < count; i++) queue_.push_back(Piece{read, i});
  }
  if (count > 1) {
    wake_.notify_all();
  } else {
    wake_.notify_one();
  }
}

void TileReader::work() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    if (stopping_) return;
    const Piece piece = queue_.front();
    queue_.pop_front();
    read_piece(piece, lock);
  }
}

// Reads and checks one piece without the lock, and notes the outcome with it.
void TileReader::read_piece(Piece piece, std::unique_lock<std::mutex>& lock) {
  TileRead* read = piece.read;
  if (!read->started) {
    read->started = true;
    read->start = Clock::now();
  }
  const size_t each = piece_bytes(read->bytes);
  const size_t from = piece.index * each;
  const size_t bytes = std::min(each, read->bytes - from);
  if (read->result == TileRead::Result::ok) {
    lock.unlock();
    int error = 0;
    const size_t got = read->file->read(read->file_offset + from, bytes, read->to + from, &error);
    const uint32_t crc = got == bytes ? crc32c(0, read->to + from, bytes) : 0;
    lock.lock();
    read->piece_crcs[piece.index] = crc;
    read->bytes_read += got;
    if (error != 0 && read->result != TileRead::Result::system_error) {
      read->result = TileRead::Result::system_error;
      read->system_error = error;
    } else if (got < bytes && read->result == TileRead::Result::ok) {
      read->result = TileRead::Result::short_read;
    }
  }
  if (--read->pieces_left == 0) finish(read);
}

// With the lock held: `done` must not call back into the reader.
void TileReader::finish(TileRead* read) {
  if (read->result == TileRead::Result::ok) {
    const size_t each = piece_bytes(read->bytes);
    uint32_t crc = 0;
    for (size_t i = 0; i < read->piece_crcs.size(); i++)
      crc = crc32c_combine(crc, read->piece_crcs[i], std::min(each, read->bytes - i * each));
    read->actual_crc = crc;
    if (crc != read->expected_crc) read->result = TileRead::Result::wrong_crc;
  }
  read->microseconds = std::chrono::duration<double, std::micro>(Clock::now() - read->start).count();
  open_.erase(std::find(open_.begin(), open_.end(), read));
  done_(context_, read);
}

std::vector<TileRead*> TileReader::stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    queue_.clear();
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  return std::move(open_);
}

}  // namespace potluck
