// Compute threads. A task runs on all of them at once; they share its items through a counter and meet at barriers.
#pragma once
#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace potluck {

class Pool;

// What all threads of a pool run together.
class Task {
 public:
  virtual ~Task() = default;
  // Called once on every thread, 0 <= thread < pool.threads().
  virtual void work(Pool& pool, int thread) = 0;
  // Called on the thread that finishes last, when the pool is free for the next task.
  virtual void done() = 0;
};

// A number that rises; threads wait for it to leave a value, first spinning, then asleep.
class Turnstile {
 public:
  uint32_t now() const { return turn_.load(std::memory_order_acquire); }
  void advance();
  // gives_way: asleep at once where another thread wants the core.
  void wait_while(uint32_t turn, std::chrono::microseconds spin, bool gives_way);

 private:
  std::atomic<uint32_t> turn_{0};
  std::atomic<int> sleepers_{0};
  std::mutex mutex_;
  std::condition_variable awake_;
};

class Pool {
 public:
  explicit Pool(int threads);
  ~Pool();  // waits for the running task
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return int(threads_.size()); }
  bool busy() const { return task_.load(std::memory_order_acquire) != nullptr; }
  bool closed() const { return closing_; }

  // An eager pool stays awake for a while behind a task: for a device whose next task comes soon, and from itself.
  void set_eager(bool eager) { eager_ = eager; }

  // One task at a time: the caller has seen !busy(). `task` lives until done() was called. JS thread only.
  void submit(Task* task);
  void close();  // waits for the running task, ends the threads; JS thread only

  // From work(): runs call(item) for every item, spread over the threads, and returns on all of them when all are done.
  template <typename Call>
  void each(int64_t items, const Call& call) {
    each_stretch(items, [&](int64_t first, int64_t past) {
      for (int64_t item = first; item < past; item++) call(item);
    });
  }

  // The same with call(first, past) for stretches of items: long ones first, so that a thread reads memory as a stream,
  // and short ones at the end, so that threads end together.
  template <typename Call>
  void each_stretch(int64_t items, const Call& call) {
    int64_t first = next_item_.load(std::memory_order_relaxed);
    while (first < items) {
      const int64_t past = first + std::max<int64_t>(1, (items - first) / (4 * count_));
      if (!next_item_.compare_exchange_weak(first, past, std::memory_order_relaxed)) continue;
      call(first, past);
      first = next_item_.load(std::memory_order_relaxed);
    }
    barrier();
  }

 private:
  void barrier();
  void loop(int thread);

  std::vector<std::thread> threads_;
  int count_ = 0;
  Turnstile start_;    // a task was submitted, or the pool closes
  Turnstile together_;  // all threads came to the barrier
  std::atomic<bool> eager_{false};
  std::atomic<int> arrived_{0};
  std::atomic<int> finished_{0};
  alignas(64) std::atomic<int64_t> next_item_{0};
  alignas(64) std::atomic<Task*> task_{nullptr};
  bool closing_ = false;  // written before start_ advances
};

}  // namespace potluck
