// Convolutions by oneDNN, as a target of XLA's foreign function interface.
//
// Each call is cut into parts, along the batch or the channels. A part is computed by one
// thread, and the threads are those of XLA, lent for the call: oneDNN's own pool (OpenMP) never
// starts, so nothing competes with XLA's threads or spins beside them.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "plan.h"
#include "problem.h"
#include "xla/ffi/api/ffi.h"

namespace cnn_jax {
namespace {

namespace ffi = xla::ffi;

constexpr size_t kMaxPlans = 1024;  // kept at once; past it, all are made anew

std::shared_ptr<Plan> FindPlan(const std::vector<int64_t>& words, int64_t threads) {
  static auto* mutex = new std::mutex();
  using Key = std::pair<std::vector<int64_t>, int64_t>;
  static auto* plans = new std::map<Key, std::shared_ptr<Plan>>();
  const Key key(words, threads);
  std::lock_guard<std::mutex> lock(*mutex);
  if (auto found = plans->find(key); found != plans->end()) return found->second;
  auto plan = std::make_shared<Plan>(Problem(words), threads);
  if (plans->size() == kMaxPlans) plans->clear();
  plans->emplace(key, plan);
  return plan;
}

// Images and their result or gradient, and weights or their gradient, in the order of oneDNN;
// `result` says which of the three is computed.
ffi::Error Convolve(ffi::ThreadPool pool, ffi::AnyBuffer lhs, ffi::AnyBuffer rhs,
                    ffi::Result<ffi::AnyBuffer> result, ffi::Span<const int64_t> problem) {
  try {
    const std::vector<int64_t> words(problem.begin(), problem.end());
    const int64_t threads = std::max<int64_t>(1, pool.num_threads());
    std::byte* left = static_cast<std::byte*>(lhs.untyped_data());
    std::byte* right = static_cast<std::byte*>(rhs.untyped_data());
    std::byte* out = static_cast<std::byte*>(result->untyped_data());
    const std::shared_ptr<Plan> plan = FindPlan(words, threads);
    switch (words[0]) {
      case kForward:
        plan->Execute(pool, threads, left, right, out);
        break;
      case kInputGradient:
        plan->Execute(pool, threads, out, right, left);
        break;
      default:
        plan->Execute(pool, threads, left, out, right);
    }
    return ffi::Error::Success();
  } catch (const std::exception& error) {
    return ffi::Error::Internal(std::string("oneDNN cannot compute a convolution: ") +
                                error.what());
  }
}

}  // namespace
}  // namespace cnn_jax

XLA_FFI_DEFINE_HANDLER_SYMBOL(cnn_jax_onednn_convolve, cnn_jax::Convolve,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Ret<xla::ffi::AnyBuffer>()
                                  .Attr<xla::ffi::Span<const int64_t>>("problem"));

// Writes the name of the kernel that oneDNN has for a problem, or why there is none, into
// `text`; returns 0 if there is one.
extern "C" int cnn_jax_onednn_implementation(const int64_t* words, int64_t count, int64_t threads,
                                             char* text, int64_t size) {
  int status = 0;
  std::string found;
  try {
    const std::vector<int64_t> problem(words, words + count);
    found = cnn_jax::FindPlan(problem, threads)->implementation();
  } catch (const std::exception& error) {
    found = error.what();
    status = 1;
  }
  const size_t length = std::min<size_t>(found.size(), size - 1);
  found.copy(text, length);
  text[length] = '\0';
  return status;
}
