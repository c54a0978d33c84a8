#include "pool.h"

namespace potluck {
namespace {

// Longer than a sleeper takes to wake: a thread that fell asleep at one barrier would else be late at the next, and the other
// fall asleep there.
constexpr auto kBarrierSpin = std::chrono::microseconds(100);
// Between tasks the core may be wanted by whoever makes the next; an eager pool waits for that awake.
constexpr auto kTaskSpin = std::chrono::microseconds(20), kEagerSpin = std::chrono::microseconds(200);
// A yield that takes so long let another thread run.
constexpr auto kOthersRan = std::chrono::microseconds(5);

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

}  // namespace

void Turnstile::advance() {
  turn_.fetch_add(1);
  if (sleepers_.load() == 0) return;
  std::lock_guard<std::mutex> lock(mutex_);  // a sleeper has either seen the new turn or is waiting by now
  awake_.notify_all();
}

void Turnstile::wait_while(uint32_t turn, std::chrono::microseconds spin, bool gives_way) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point until = Clock::now() + spin;
  for (Clock::time_point before = until - spin, after; before < until; before = after) {
    for (int i = 0; i < 32; i++) {
      if (now() != turn) return;
      relax();
    }
    // Where a thread that is waited for has no core of its own, it gets this one.
    std::this_thread::yield();
    after = Clock::now();
    if (gives_way && after - before > kOthersRan) break;
  }
  std::unique_lock<std::mutex> lock(mutex_);
  sleepers_.fetch_add(1);
  awake_.wait(lock, [&] { return turn_.load() != turn; });
  sleepers_.fetch_sub(1);
}

Pool::Pool(int threads) : count_(threads) {
  threads_.reserve(size_t(threads));
  try {
    for (int i = 0; i < threads; i++) threads_.emplace_back([this, i] { loop(i); });
  } catch (...) {
    close();
    throw;
  }
}

Pool::~Pool() { close(); }

void Pool::close() {
  if (closing_) return;
  while (busy()) std::this_thread::sleep_for(std::chrono::microseconds(100));
  closing_ = true;
  start_.advance();
  for (std::thread& thread : threads_) thread.join();
}

void Pool::submit(Task* task) {
  task_.store(task, std::memory_order_release);
  start_.advance();
}

void Pool::barrier() {
  const uint32_t turn = together_.now();
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == count_) {
    arrived_.store(0, std::memory_order_relaxed);
    next_item_.store(0, std::memory_order_relaxed);
    together_.advance();
    return;
  }
  together_.wait_while(turn, kBarrierSpin, false);
}

void Pool::loop(int thread) {
  uint32_t turn = 0;
  for (;;) {
    start_.wait_while(turn, eager_ ? kEagerSpin : kTaskSpin, true);
    turn++;  // every thread takes part in every task, so no turn is missed
    if (closing_) return;
    Task* task = task_.load(std::memory_order_acquire);
    task->work(*this, thread);
    if (finished_.fetch_add(1, std::memory_order_acq_rel) + 1 < count_) continue;
    finished_.store(0, std::memory_order_relaxed);
    task_.store(nullptr, std::memory_order_release);
    task->done();
  }
}

}  // namespace potluck
