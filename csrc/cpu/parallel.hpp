// Tasks over threads, which can be stopped. No result depends on which thread runs a task.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "cpu/tile.hpp"
#include "egt/run.hpp"

namespace egt::cpu {

// make_worker() is called once per thread and returns work(task, stop); work should return soon after stop is true.
// The calling thread only waits and polls run.interrupted, so an interrupt is seen whatever the tasks' length. Where
// the system gives no thread at all, it does the tasks itself and polls between them.
template <class MakeWorker>
void for_each_task(std::int64_t n_tasks, const Run& run, MakeWorker make_worker) {
  Stop stop;
  std::atomic<std::int64_t> next{0};
  std::mutex mutex;
  std::condition_variable finished;
  std::exception_ptr failure;
  int running = static_cast<int>(std::min<std::int64_t>(std::max(run.n_threads, 1), n_tasks));

  bool interrupted = false;
  const auto body = [&](bool polls) {
    try {
      auto work = make_worker();
      for (std::int64_t task; !stop && (task = next.fetch_add(1)) < n_tasks;) {
        work(task, stop);
        if (polls && !interrupted && (interrupted = run.interrupted())) stop.set();
      }
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex);
      failure = std::current_exception();
      stop.set();
    }
    const std::lock_guard<std::mutex> lock(mutex);
    if (--running == 0) finished.notify_one();
  };

  std::vector<std::thread> threads;
  const auto join = [&] {
    for (std::thread& thread : threads) thread.join();
  };
  const int wanted = running;
  for (int i = 0; i < wanted; ++i) {
    try {
      threads.emplace_back(body, false);
    } catch (...) {  // the system gave no further thread: continue with those there are
      const std::lock_guard<std::mutex> lock(mutex);
      running -= wanted - i;
      break;
    }
  }
  if (threads.empty()) {
    running = 1;
    body(true);
  }
  {
    std::unique_lock<std::mutex> lock(mutex);
    while (!finished.wait_for(lock, std::chrono::milliseconds(50), [&] { return running == 0; })) {
      if (interrupted) continue;
      lock.unlock();
      interrupted = run.interrupted();
      if (interrupted) stop.set();
      lock.lock();
    }
  }
  join();
  if (failure) std::rethrow_exception(failure);
  if (interrupted) throw Interrupted{};
}

// Work on the calling thread: use(first, last) for successive parts of [0, n), each of about a tenth of a second at the
// most where one costs `cost` values read or written.
template <class Use>
void for_each_part(std::int64_t n, std::int64_t cost, const Run& run, Use use) {
  const std::int64_t step = std::max<std::int64_t>((std::int64_t{1} << 24) / std::max<std::int64_t>(cost, 1), 1);
  for (std::int64_t first = 0; first < n; first += step) {
    if (first > 0 && run.interrupted()) throw Interrupted{};
    use(first, std::min(n, first + step));
  }
}

}  // namespace egt::cpu
