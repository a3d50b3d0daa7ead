// Memory for tables that are read and written all over, and live as long as one call.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>
#include <utility>

#include "pages.hpp"

namespace ndp {

// `count` numbers, not initialised. Large tables lie in large pages where the system gives such:
// there are fewer to fetch at first, and an access anywhere finds its page's address at hand.
template <class T>
class Table {
 public:
  Table() = default;
  explicit Table(int64_t count) : size_(count) {
    size_t bytes = (static_cast<size_t>(count) * sizeof(T) + 63) / 64 * 64;
    if (bytes == 0) return;
    const bool large = bytes >= kLargePage;
    if (large) bytes = (bytes + kLargePage - 1) / kLargePage * kLargePage;
    data_ = static_cast<T*>(std::aligned_alloc(large ? kLargePage : 64, bytes));
    if (data_ == nullptr) throw std::bad_alloc();
    if (large) want_large_pages(data_, bytes);
  }
  Table(Table&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Table& operator=(Table&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Table() { std::free(data_); }

  T* data() { return data_; }
  const T* data() const { return data_; }
  int64_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T& operator[](int64_t i) { return data_[i]; }
  const T& operator[](int64_t i) const { return data_[i]; }

 private:
  T* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace ndp
