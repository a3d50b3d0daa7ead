// Which kernel runs, on how many threads, and how their results come together.
#include "dot.hpp"

#include <cmath>
#include <stdexcept>
#include <vector>

#include "binned_products.hpp"
#include "isa.hpp"
#include "formats.hpp"
#include "levels.hpp"
#include "workers.hpp"

namespace ndp {

NDP_KERNELS(DotKernels, dot_kernels)

namespace {

// What a worker takes at a time: whole numbers of chunks and blocks.
constexpr int64_t kPiece = int64_t{1} << 18;
static_assert(kPiece % kSumChunk == 0 && kPiece % kBinnedBlock == 0);

struct Job {
  Dtype dtype;
  DotKernels kernels;
  bool root;
  const char* a;
  const char* b;
  int64_t n;
  int threads;

  int64_t bytes() const { return element_bytes(dtype); }
  const void* left(int64_t element) const { return a + element * bytes(); }
  const void* right(int64_t element) const { return b + element * bytes(); }
  int workers() const { return workers_for(n / kPiece, threads); }
};

// Whether all products are zeros with different signs; asked only when their sum is zero.
bool all_negative_zero(const Job& job) {
  const uint64_t sign = format_of(job.dtype, "dot (or norm)").sign;
  for (int64_t i = 0; i < job.n; ++i) {
    uint64_t a = 0, b = 0;
    std::memcpy(&a, job.left(i), job.bytes());  // little-endian, like all that is built for
    std::memcpy(&b, job.right(i), job.bytes());
    if (((a ^ b) & sign) == 0 || ((a & ~sign) != 0 && (b & ~sign) != 0)) return false;
  }
  return job.n > 0;
}

uint64_t rounded(const Job& job, WideAcc& acc) {
  const Format& format = format_of(job.dtype, "dot (or norm)");
  if (job.root) return root_to(acc, format);
  const uint64_t bits = round_to(acc, format, false);
  return bits == 0 && all_negative_zero(job) ? format.sign : bits;
}

template <class Partial>
uint64_t dot_fixed_order(const Job& job) {
  std::vector<Partial> partials(std::max<int64_t>((job.n + kSumChunk - 1) / kSumChunk, 1));
  share_out(job.n, kPiece, job.workers(), [&](int, int64_t first, int64_t count) {
    job.kernels.chunks(job.left(first), job.right(first), count, &partials[first / kSumChunk]);
  });
  const DefaultFloatMode mode;
  add_in_rounds(static_cast<int64_t>(partials.size()), partials.data());
  const Partial sum = partials[0];
  return round_double(job.root ? std::sqrt(sum) : sum, format_of(job.dtype, "dot (or norm)"));
}

uint64_t dot_binned(const Job& job) {
  const bool wide = job.dtype == Dtype::float64;
  const int bins = wide ? kBins64 : kBins32;
  std::vector<Binned> sums(job.workers());
  for (Binned& sum : sums) {
    clear(sum);
    sum.top = wide ? kLowestProductTop64 : kLowestProductTop32;
  }
  share_out(job.n, kPiece, job.workers(), [&](int worker, int64_t first, int64_t count) {
    job.kernels.binned(job.left(first), job.right(first), count, sums[worker]);
  });
  for (size_t worker = 1; worker < sums.size(); ++worker) merge(sums[0], sums[worker], bins);
  WideAcc acc;
  to_wide(sums[0], bins, acc);
  return rounded(job, acc);
}

uint64_t dot_exact(const Job& job) {
  std::vector<ProductSum> sums(job.workers());
  for (ProductSum& sum : sums) clear(sum);
  share_out(job.n, kPiece, job.workers(), [&](int worker, int64_t first, int64_t count) {
    job.kernels.exact(job.left(first), job.right(first), count, sums[worker]);
  });
  for (size_t worker = 1; worker < sums.size(); ++worker) merge(sums[0].acc, sums[worker].acc);
  return rounded(job, sums[0].acc);
}

uint64_t dot_bits(const Job& job, DotVariant variant) {
  switch (variant) {
    case DotVariant::fixed_order:
      return job.dtype == Dtype::float64 ? dot_fixed_order<double>(job)
                                         : dot_fixed_order<float>(job);
    case DotVariant::binned:
      return dot_binned(job);
    default:
      return dot_exact(job);
  }
}

}  // namespace

void dot(Dtype dtype, DotVariant variant, bool root, const void* a, const void* b, int64_t n,
         int threads, const std::string& isa, void* result) {
  format_of(dtype, "dot (or norm)");
  const Job job{dtype,
                dot_kernels(choose_isa(isa), dtype),
                root,
                static_cast<const char*>(a),
                static_cast<const char*>(b),
                n,
                threads};
  const uint64_t bits = dot_bits(job, variant);
  std::memcpy(result, &bits, job.bytes());
}

}  // namespace ndp
