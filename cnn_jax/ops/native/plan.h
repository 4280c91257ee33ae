// A problem made ready: which kernels of oneDNN compute it, in how many parts.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>

#include "oneapi/dnnl/dnnl.hpp"
#include "problem.h"
#include "threads.h"

namespace cnn_jax {

constexpr int64_t kMaxPartials = 64 << 20;  // bytes of partial weight gradients of one call
constexpr int64_t kCache = 1 << 20;         // bytes of a core's own cache
constexpr int64_t kVector = 16;             // channels that oneDNN's kernels take at once

inline const dnnl::engine& Engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

// Into how many equal parts to cut a length: at least `least` if it can be done with `most`.
inline int64_t CountParts(int64_t length, int64_t least, int64_t most) {
  int64_t best = 1;
  for (int64_t parts = 2; parts <= std::min(length, most) && best < least; ++parts) {
    if (length % parts == 0) best = parts;
  }
  return best;
}

class Plan {
 public:
  Plan(const Problem& problem, int64_t threads) : problem_(problem), weights_(problem.weights) {
    const OneThread one_thread;
    if (problem.role != kWeightGradient) {
      CutBatch(CountParts(problem.batch, threads, problem.batch));
    } else if (!CutChannels(threads)) {
      const auto most = kMaxPartials / static_cast<int64_t>(problem.weights.get_size());
      CutBatch(CountParts(problem.batch, threads, most));
    }
    Create();
    if (problem.role == kWeightGradient) {
      if (parts_ > 1 || packed_ != weights_) reorder_ = Reorder(packed_, weights_);
    } else if (packed_ != weights_) {
      reorder_ = Reorder(weights_, packed_);
    }
  }

  const std::string& implementation() const { return implementation_; }

  void Execute(xla::ffi::ThreadPool& pool, int64_t threads, std::byte* source, std::byte* weights,
               std::byte* destination) {
    if (problem_.role == kWeightGradient && gather_) {
      GatherWeightGradients(pool, threads, source, weights, destination);
    } else if (problem_.role == kWeightGradient) {
      SumWeightGradients(pool, threads, source, weights, destination);
    } else {
      Convolve(pool, threads, source, weights, destination);
    }
  }

 private:
  void CutBatch(int64_t parts) {
    parts_ = parts;
    source_ = WithLength(problem_.source, 0, problem_.batch / parts);
    destination_ = WithLength(problem_.destination, 0, problem_.batch / parts);
  }

  // A gradient of weights too large for a core's cache is swept through memory for each image.
  // So it is cut into pieces of output channels, each for all images. Returns whether it was.
  bool CutChannels(int64_t threads) {
    const int64_t channels = problem_.destination.get_dims()[1];
    const int64_t pieces = problem_.weights.get_size() / kCache;
    const int64_t parts =
        CountParts(channels / kVector, std::max(threads, pieces), channels / kVector);
    const bool fits = !problem_.grouped && channels % kVector == 0;
    if (!fits || pieces <= 1 || parts < threads) return false;
    parts_ = parts;
    source_ = problem_.source;
    view_ = WithLength(problem_.destination, 1, channels / parts);
    destination_ = Problem::ChannelsLast(view_.get_dims(), problem_.operand);
    weights_ = WithLength(problem_.weights, 0, channels / parts);
    gather_ = Reorder(view_, destination_);
    return true;
  }

  void Create() {
    const Problem& p = problem_;
    const auto direct = dnnl::algorithm::convolution_direct;
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    const Desc weights = AnyLayout(p.operand);
    // Gradients want a forward convolution as a hint, all of whose operands have one type.
    const Desc hint_source(source_.get_dims(), p.operand, source_.get_strides());
    const dnnl::convolution_forward::primitive_desc forward(
        Engine(), dnnl::prop_kind::forward_training, direct, hint_source, weights,
        destination_, p.strides, p.dilation, p.low, p.high, attributes);
    if (p.role == kForward) {
      Adopt<dnnl::convolution_forward>(forward, forward.weights_desc());
    } else if (p.role == kInputGradient) {
      const dnnl::convolution_backward_data::primitive_desc backward(
          Engine(), direct, source_, weights, destination_, p.strides, p.dilation, p.low, p.high,
          forward, attributes);
      Adopt<dnnl::convolution_backward_data>(backward, backward.weights_desc());
    } else {
      // Partial sums are added up in float32.
      const dnnl::convolution_backward_weights::primitive_desc backward(
          Engine(), direct, source_, AnyLayout(dnnl::memory::data_type::f32), destination_,
          p.strides, p.dilation, p.low, p.high, forward, attributes);
      Adopt<dnnl::convolution_backward_weights>(backward, backward.diff_weights_desc());
    }
  }

  // Weights in the layout that the kernel likes best.
  Desc AnyLayout(dnnl::memory::data_type type) const {
    return Desc(weights_.get_dims(), type, dnnl::memory::format_tag::any);
  }

  template <typename Primitive, typename Description>
  void Adopt(const Description& description, const Desc& packed) {
    primitive_ = Primitive(description);
    scratchpad_ = description.scratchpad_desc();
    implementation_ = description.impl_info_str();
    packed_ = packed;
  }

  static dnnl::primitive Reorder(const Desc& from, const Desc& to) {
    return dnnl::reorder(dnnl::reorder::primitive_desc(Engine(), from, Engine(), to));
  }

  static void Run(const dnnl::primitive& primitive,
                  const std::unordered_map<int, dnnl::memory>& arguments) {
    const OneThread one_thread;
    dnnl::stream stream(Engine());
    primitive.execute(stream, arguments);
    stream.wait();
  }

  static void Run(const dnnl::primitive& reorder, const Desc& from_desc, std::byte* from,
                  const Desc& to_desc, std::byte* to) {
    Run(reorder, {{DNNL_ARG_FROM, At(from_desc, from)}, {DNNL_ARG_TO, At(to_desc, to)}});
  }

  void Convolve(xla::ffi::ThreadPool& pool, int64_t threads, std::byte* source, std::byte* weights,
                std::byte* destination) {
    const int64_t workers = std::min(threads, parts_);
    const size_t scratch = RoundUp(scratchpad_.get_size());
    Borrowed workspace(workers * scratch + packed_.get_size());
    if (reorder_) {
      std::byte* packed = workspace.data() + workers * scratch;
      Run(reorder_, weights_, weights, packed_, packed);
      weights = packed;
    }
    const bool forward = problem_.role == kForward;
    const int source_arg = forward ? DNNL_ARG_SRC : DNNL_ARG_DIFF_SRC;
    const int destination_arg = forward ? DNNL_ARG_DST : DNNL_ARG_DIFF_DST;
    ForEachPart(pool, parts_, workers, [&](int64_t part, int64_t worker) {
      Run(primitive_, {{source_arg, Part(source_, source, part)},
           {DNNL_ARG_WEIGHTS, At(packed_, weights)},
           {destination_arg, Part(destination_, destination, part)},
           {DNNL_ARG_SCRATCHPAD, At(scratchpad_, workspace.data() + worker * scratch)}});
    });
  }

  void SumWeightGradients(xla::ffi::ThreadPool& pool, int64_t threads, std::byte* source,
                          std::byte* weights, std::byte* destination) {
    const int64_t workers = std::min(threads, parts_);
    const size_t scratch = RoundUp(scratchpad_.get_size());
    const size_t partial = RoundUp(packed_.get_size());
    Borrowed workspace(workers * scratch + parts_ * partial);
    std::byte* partials = workspace.data() + workers * scratch;
    if (!reorder_ && parts_ == 1) partials = weights;
    ForEachPart(pool, parts_, workers, [&](int64_t part, int64_t worker) {
      Run(primitive_, {{DNNL_ARG_SRC, Part(source_, source, part)},
           {DNNL_ARG_DIFF_WEIGHTS, At(packed_, partials + part * partial)},
           {DNNL_ARG_DIFF_DST, Part(destination_, destination, part)},
           {DNNL_ARG_SCRATCHPAD, At(scratchpad_, workspace.data() + worker * scratch)}});
    });
    if (parts_ > 1) AddPartials(pool, workers, partials, partial);
    if (reorder_) Run(reorder_, packed_, partials, weights_, weights);
  }

  void GatherWeightGradients(xla::ffi::ThreadPool& pool, int64_t threads, std::byte* source,
                             std::byte* weights, std::byte* destination) {
    const int64_t workers = std::min(threads, parts_);
    const size_t gathered = RoundUp(scratchpad_.get_size());
    const size_t packed = gathered + RoundUp(destination_.get_size());
    const size_t bytes = packed + RoundUp(packed_.get_size());
    const int64_t channels = destination_.get_dims()[1];
    const size_t destination_step = channels * Bytes(destination_);
    const size_t weights_step = channels * weights_.get_strides()[0] * Bytes(weights_);
    Borrowed workspace(workers * bytes);
    ForEachPart(pool, parts_, workers, [&](int64_t part, int64_t worker) {
      std::byte* mine = workspace.data() + worker * bytes;
      Run(gather_, view_, destination + part * destination_step, destination_, mine + gathered);
      Run(primitive_, {{DNNL_ARG_SRC, At(source_, source)},
                       {DNNL_ARG_DIFF_WEIGHTS, At(packed_, mine + packed)},
                       {DNNL_ARG_DIFF_DST, At(destination_, mine + gathered)},
                       {DNNL_ARG_SCRATCHPAD, At(scratchpad_, mine)}});
      Run(reorder_, packed_, mine + packed, weights_, weights + part * weights_step);
    });
  }

  // Of one element.
  static size_t Bytes(const Desc& desc) {
    return dnnl::memory::data_type_size(desc.get_data_type());
  }

  // Adds all partial sums to the first, each thread in a range of its own.
  void AddPartials(xla::ffi::ThreadPool& pool, int64_t workers, std::byte* partials,
                   size_t partial) {
    const int64_t count = packed_.get_size() / sizeof(float);
    const int64_t range = (count + workers - 1) / workers;
    ForEachPart(pool, workers, workers, [&](int64_t slice, int64_t) {
      const int64_t start = slice * range, end = std::min(count, start + range);
      float* sums = reinterpret_cast<float*>(partials);
      for (int64_t part = 1; part < parts_; ++part) {
        const float* addends = reinterpret_cast<const float*>(partials + part * partial);
        for (int64_t i = start; i < end; ++i) sums[i] += addends[i];
      }
    });
  }

  static dnnl::memory At(const Desc& desc, std::byte* start) {
    return dnnl::memory(desc, Engine(), start);
  }

  // Images lie one after another, and so do parts.
  static dnnl::memory Part(const Desc& desc, std::byte* start, int64_t part) {
    return At(desc, start + part * desc.get_size());
  }

  Problem problem_;
  int64_t parts_ = 1;
  Desc source_, destination_;         // of one part
  Desc weights_, packed_;             // of one part, as the caller lays them out and the kernel
  Desc view_;                         // one part of the destination, among all channels
  Desc scratchpad_;
  dnnl::primitive primitive_, reorder_, gather_;
  std::string implementation_;
};

}  // namespace cnn_jax
