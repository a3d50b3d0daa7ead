#include "gather.hpp"

#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace ndp {

namespace {

constexpr int kMaxDims = 64;  // torch's own limit

// Columns copied together. Where the source runs down the columns (a transposed matrix), their
// cache lines serve all rows of the plane before they are given up.
constexpr int64_t kTile = 8;

#if defined(__SSE2__)
// Elements of 4 bytes that run down the columns: squares of 16 x 16, a cache line wide, so that
// every line is read once and written once, however the columns lie to each other.
constexpr int64_t kSquare = 16;

// One square, by way of a copy from which registers turn it.
inline void turn_square(const unsigned char* from, int64_t stride, unsigned char* to,
                        int64_t to_stride) {
  alignas(64) unsigned char lines[kSquare][kSquare * 4];
  for (int64_t column = 0; column < kSquare; ++column)
    std::memcpy(lines[column], from + column * stride, kSquare * 4);
  for (int64_t row = 0; row < kSquare; row += 4)
    for (int64_t column = 0; column < kSquare; column += 4) {
      const auto load = [&](int64_t i) {
        return _mm_load_si128(reinterpret_cast<const __m128i*>(lines[column + i] + row * 4));
      };
      const auto store = [&](int64_t i, __m128i line) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to + (row + i) * to_stride + column * 4), line);
      };
      const __m128i a = load(0), b = load(1), c = load(2), d = load(3);
      const __m128i ab = _mm_unpacklo_epi32(a, b), cd = _mm_unpacklo_epi32(c, d);
      const __m128i ab_high = _mm_unpackhi_epi32(a, b), cd_high = _mm_unpackhi_epi32(c, d);
      store(0, _mm_unpacklo_epi64(ab, cd));
      store(1, _mm_unpackhi_epi64(ab, cd));
      store(2, _mm_unpacklo_epi64(ab_high, cd_high));
      store(3, _mm_unpackhi_epi64(ab_high, cd_high));
    }
}
#endif

template <int64_t size>
void copy_fixed(const unsigned char* from, int64_t row_stride, int64_t stride, int64_t rows,
                int64_t columns, unsigned char* to) {
  int64_t turned = 0;  // columns that are done, of the first rows
  int64_t turned_rows = 0;
#if defined(__SSE2__)
  if (size == 4 && row_stride == 4 && stride > row_stride) {
    turned = columns / kSquare * kSquare;
    turned_rows = rows / kSquare * kSquare;
    for (int64_t row = 0; row < turned_rows; row += kSquare)
      for (int64_t column = 0; column < turned; column += kSquare)
        turn_square(from + row * 4 + column * stride, stride, to + (row * columns + column) * 4,
                    columns * 4);
  }
#endif
  const int64_t tile = stride < row_stride ? columns : kTile;
  for (int64_t start = 0; start < columns; start += tile) {
    const int64_t end = start + tile < columns ? start + tile : columns;
    for (int64_t row = start < turned ? turned_rows : 0; row < rows; ++row)
      for (int64_t column = start; column < end; ++column)
        std::memcpy(to + (row * columns + column) * size, from + row * row_stride + column * stride,
                    size);
  }
}

// `rows` times `columns` elements of `size` bytes; strides in bytes.
void copy_plane(const unsigned char* from, int64_t row_stride, int64_t stride, int64_t size,
                int64_t rows, int64_t columns, unsigned char* to) {
  if (stride == size) {
    for (int64_t row = 0; row < rows; ++row)
      std::memcpy(to + row * columns * size, from + row * row_stride, columns * size);
    return;
  }
  switch (size) {
    case 1:
      return copy_fixed<1>(from, row_stride, stride, rows, columns, to);
    case 2:
      return copy_fixed<2>(from, row_stride, stride, rows, columns, to);
    case 4:
      return copy_fixed<4>(from, row_stride, stride, rows, columns, to);
    case 8:
      return copy_fixed<8>(from, row_stride, stride, rows, columns, to);
    default:
      return copy_fixed<16>(from, row_stride, stride, rows, columns, to);
  }
}

}  // namespace

Gather::Gather(const void* data, const Layout& layout, int64_t element_bytes)
    : data_(static_cast<const unsigned char*>(data)), size_(element_bytes) {
  for (size_t dim = 0; dim < layout.shape.size(); ++dim) {
    const int64_t count = layout.shape[dim];
    const int64_t stride = layout.strides[dim] * size_;
    if (count == 1) continue;
    if (!shape_.empty() && strides_.back() == stride * count) {
      shape_.back() *= count;
      strides_.back() = stride;
    } else {
      shape_.push_back(count);
      strides_.push_back(stride);
    }
  }
}

void Gather::copy(int64_t start, int64_t count, unsigned char* to) const {
  if (shape_.empty()) {
    std::memcpy(to, data_ + start * size_, count * size_);
    return;
  }
  const int last = static_cast<int>(shape_.size()) - 1;
  int64_t place[kMaxDims];
  const unsigned char* row = data_;
  int64_t rest = start;
  for (int dim = last; dim >= 0; --dim) {
    place[dim] = rest % shape_[dim];
    rest /= shape_[dim];
    if (dim != last) row += place[dim] * strides_[dim];
  }
  while (count > 0) {
    // Whole rows of the last two dimensions at once, or a piece of one row.
    int64_t rows = 1;
    int64_t columns = shape_[last] - place[last];
    if (columns > count) {
      columns = count;
    } else if (last > 0 && place[last] == 0) {
      const int64_t left = shape_[last - 1] - place[last - 1];
      rows = left < count / columns ? left : count / columns;
    }
    const int64_t row_stride = last > 0 ? strides_[last - 1] : 0;
    copy_plane(row + place[last] * strides_[last], row_stride, strides_[last], size_, rows, columns,
               to);
    to += rows * columns * size_;
    count -= rows * columns;
    if (count == 0) return;
    place[last] = 0;
    int64_t carried = rows;
    for (int dim = last - 1; carried != 0; --dim) {
      row += carried * strides_[dim];
      place[dim] += carried;
      carried = 0;
      if (place[dim] == shape_[dim]) {
        row -= shape_[dim] * strides_[dim];
        place[dim] = 0;
        carried = 1;
      }
    }
  }
}

}  // namespace ndp
