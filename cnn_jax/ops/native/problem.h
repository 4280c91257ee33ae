// A convolution as Python describes it: see `Problem` in problem.py, which writes the words.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <vector>

#include "oneapi/dnnl/dnnl.hpp"

namespace cnn_jax {

using Dims = dnnl::memory::dims;
using Desc = dnnl::memory::desc;

enum Role { kForward = 0, kInputGradient = 1, kWeightGradient = 2 };

struct Problem {
  Role role;
  dnnl::memory::data_type operand, result;  // of the two that are given, and of the third
  Desc source, weights, destination;        // weights as the caller lays them out
  Dims strides, dilation, low, high;
  int64_t batch;
  bool grouped;

  explicit Problem(const std::vector<int64_t>& words) {
    auto next = words.begin();
    auto take = [&](int64_t count) {
      if (words.end() - next < count) throw std::invalid_argument("a problem cut short");
      Dims dims(next, next + count);
      next += count;
      return dims;
    };
    role = static_cast<Role>(take(1)[0]);
    const int64_t rank = take(1)[0];
    const Dims types = take(2);
    const Dims source_dims = take(rank + 2);
    Dims weights_dims = take(rank + 3), weights_strides = take(rank + 3);
    const Dims destination_dims = take(rank + 2);
    strides = take(rank);
    dilation = take(rank);
    low = take(rank);
    high = take(rank);
    grouped = weights_dims[0] > 1;
    if (!grouped) {  // one group: oneDNN has more kernels for weights without it
      weights_dims.erase(weights_dims.begin());
      weights_strides.erase(weights_strides.begin());
    }
    batch = source_dims[0];
    operand = Type(types[0]);
    result = Type(types[1]);
    source = ChannelsLast(source_dims, role == kInputGradient ? result : operand);
    weights = Desc(weights_dims, role == kWeightGradient ? result : operand, weights_strides);
    destination = ChannelsLast(destination_dims, role == kForward ? result : operand);
  }

  static dnnl::memory::data_type Type(int64_t code) {
    return code == 0 ? dnnl::memory::data_type::f32 : dnnl::memory::data_type::bf16;
  }

  // Dims in the order batch, channels, space; in memory the channels are last.
  static Desc ChannelsLast(const Dims& dims, dnnl::memory::data_type type) {
    Dims steps(dims.size());
    int64_t step = dims[1];
    steps[1] = 1;
    for (size_t axis = dims.size() - 1; axis >= 2; --axis) {
      steps[axis] = step;
      step *= dims[axis];
    }
    steps[0] = step;
    return Desc(dims, type, steps);
  }
};

// What lies first along an axis, `length` of it.
inline Desc WithLength(const Desc& whole, int64_t axis, int64_t length) {
  Dims dims = whole.get_dims();
  dims[axis] = length;
  return Desc(dims, whole.get_data_type(), whole.get_strides());
}

}  // namespace cnn_jax
