// XLA's threads, lent to one call, and memory that outlives a call.
#pragma once

#include <omp.h>

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace cnn_jax {

constexpr size_t kAlignment = 64;  // bytes of a cache line

inline size_t RoundUp(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// While it lives, OpenMP has one thread for this one, and so oneDNN plans and runs with one.
class OneThread {
 public:
  OneThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(before_); }

 private:
  int before_;
};

// Calls `work(part, worker)` for each part. The caller works too and waits only for parts that
// another thread has begun, so it cannot wait for ever when all threads are busy. `worker` is
// below `workers`, and no two threads have the same one at once.
inline void ForEachPart(xla::ffi::ThreadPool& pool, int64_t parts, int64_t workers,
                 std::function<void(int64_t, int64_t)> work) {
  struct Shared {
    std::function<void(int64_t, int64_t)> work;
    int64_t parts;
    std::atomic<int64_t> next_part{0}, next_worker{0};
    std::mutex mutex;
    std::condition_variable finished;
    int64_t done = 0;
    std::exception_ptr error;

    void Run() {
      const OneThread one_thread;
      const int64_t worker = next_worker.fetch_add(1);
      for (int64_t part; (part = next_part.fetch_add(1)) < parts;) {
        std::exception_ptr failure;
        try {
          work(part, worker);
        } catch (...) {
          failure = std::current_exception();
        }
        std::lock_guard<std::mutex> lock(mutex);
        if (failure) error = failure;
        if (++done == parts) finished.notify_all();
      }
    }
  };
  auto shared = std::make_shared<Shared>();
  shared->work = std::move(work);
  shared->parts = parts;
  for (int64_t helper = 1; helper < workers; ++helper) {
    pool.Schedule([shared] { shared->Run(); });
  }
  shared->Run();
  std::unique_lock<std::mutex> lock(shared->mutex);
  shared->finished.wait(lock, [&] { return shared->done == shared->parts; });
  if (shared->error) std::rethrow_exception(shared->error);
}

class Workspaces {
 public:
  using Buffer = std::unique_ptr<std::byte, void (*)(void*)>;
  struct Workspace {
    Buffer buffer{nullptr, std::free};
    size_t size = 0;
  };

  Workspace Take(size_t bytes) {
    Workspace taken;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (!free_.empty()) {
        taken = std::move(free_.back());
        free_.pop_back();
      }
    }
    if (taken.size < bytes) {
      taken.buffer.reset(static_cast<std::byte*>(std::aligned_alloc(kAlignment, RoundUp(bytes))));
      if (taken.buffer == nullptr) throw std::bad_alloc();
      taken.size = bytes;
    }
    return taken;
  }

  void Give(Workspace workspace) {
    std::lock_guard<std::mutex> lock(mutex_);
    free_.push_back(std::move(workspace));
  }

 private:
  std::mutex mutex_;
  std::vector<Workspace> free_;
};

// Never destroyed: threads of XLA may outlive the end of `main`.
inline Workspaces& AllWorkspaces() {
  static auto* workspaces = new Workspaces();
  return *workspaces;
}

class Borrowed {
 public:
  explicit Borrowed(size_t bytes) : workspace_(AllWorkspaces().Take(bytes)) {}
  ~Borrowed() { AllWorkspaces().Give(std::move(workspace_)); }
  std::byte* data() { return workspace_.buffer.get(); }

 private:
  Workspaces::Workspace workspace_;
};

}  // namespace cnn_jax
