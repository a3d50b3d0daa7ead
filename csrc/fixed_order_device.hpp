// The fixed_order format of sums on the device (docs/ops.md): chunks of 4096 terms by 64 lanes, then
// rounds of neighbours.
#pragma once

#include "device.hpp"
#include "elements.hpp"
#include "sum.hpp"

namespace ndp {

// A chunk is the work of a few threads, each with the lanes that lie in 16 bytes.
template <class T>
constexpr int kTeam = kSumLanes / kVector<T>;

// lane[i] is lane member * kVector + i of the chunk's 64: folded in halves; member 0 has the sum.
template <class T>
__device__ inline typename Element<T>::Partial fold_lanes(
    typename Element<T>::Partial (&lane)[kVector<T>]) {
#pragma unroll
  for (int by = kTeam<T> / 2; by > 0; by /= 2)
#pragma unroll
    for (int i = 0; i < kVector<T>; ++i)
      lane[i] += __shfl_down_sync(kAllLanes, lane[i], static_cast<unsigned>(by), kTeam<T>);
#pragma unroll
  for (int half = kVector<T> / 2; half > 0; half /= 2)
#pragma unroll
    for (int i = 0; i < half; ++i) lane[i] += lane[i + half];
  return lane[0];
}

// The sum of a chunk's first `count` terms, in member 0 of the team. Whole warps come here together,
// as they trade lanes. source: read(at), the elements that lie in 16 bytes; terms(read, terms); one(at).
template <class T, class Source>
__device__ inline typename Element<T>::Partial add_chunk(const Source& source, int count,
                                                         int member) {
  using Partial = typename Element<T>::Partial;
  Partial lane[kVector<T>];
#pragma unroll
  for (int i = 0; i < kVector<T>; ++i) lane[i] = -Partial{0};  // -0.0 plus x is x, for every x
  int at = member * kVector<T>;
  const auto add = [&](const auto& read) {
    Partial terms[kVector<T>];
    source.terms(read, terms);
#pragma unroll
    for (int i = 0; i < kVector<T>; ++i) lane[i] += terms[i];
  };
  // All reads of a round are on their way before the first of them is waited for.
  for (; at + (Source::kAtOnce - 1) * kSumLanes + kVector<T> <= count;
       at += Source::kAtOnce * kSumLanes) {
    typename Source::Read reads[Source::kAtOnce];
#pragma unroll
    for (int k = 0; k < Source::kAtOnce; ++k) reads[k] = source.read(at + k * kSumLanes);
#pragma unroll
    for (int k = 0; k < Source::kAtOnce; ++k) add(reads[k]);
  }
  for (; at + kVector<T> <= count; at += kSumLanes) add(source.read(at));
#pragma unroll
  for (int i = 0; i < kVector<T>; ++i)
    if (at + i < count) lane[i] += source.one(at + i);
  return fold_lanes<T>(lane);
}

// Partials that one block adds in rounds.
constexpr int kFold = 2048;

// All threads of a block: values[0] is the sum, in thread 0, of `count` <= kFold neighbours, in
// rounds, the last of an odd number waiting for the next. A power of two of neighbours at a time
// leaves the tree what it is.
template <class Partial>
__device__ inline void fold_neighbours(const Partial* from, int count, Partial* values) {
  const int threads = static_cast<int>(blockDim.x);
  __syncthreads();  // of the neighbours before, all has been read
  for (int i = static_cast<int>(threadIdx.x); i < count; i += threads) values[i] = from[i];
  for (int apart = 1; apart < count; apart *= 2) {
    __syncthreads();
    for (int i = 2 * apart * static_cast<int>(threadIdx.x); i + apart < count;
         i += 2 * apart * threads)
      values[i] += values[i + apart];
  }
  __syncthreads();
}

}  // namespace ndp
