// The tensors among the arguments or results of a call, found and read by Python's own API.
// Included by bindings.cpp alone.
#pragma once

#include <pybind11/pybind11.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <string>
#include <unordered_map>
#include <vector>

#include "digest.hpp"
#include "parallel.hpp"

namespace ndp {

// What a call was given or gave. text: all that is no tensor, in order, with "T" for each tensor;
// empty where there are only tensors. unknown: types of what was not looked into.
struct Operands {
  std::vector<DigestedTensor> tensors;
  int64_t bytes = 0;
  std::string text;
  std::vector<pybind11::object> unknown;
  bool wanted = true;  // the tensors' digests
  bool only_tensors = true;
  bool readable = true;  // else nothing of this counts: the caller has to look for itself
};

// Knows what a tensor is that can be read where it lies: of one of these types, strided, on the
// CPU, with memory for all its elements and no sign or conjugate still to be carried out.
class OperandReader {
 public:
  using Types = std::vector<pybind11::type>;

  // codes: dtype -> its number. told: types whose values are written as Python shows them, besides
  // numbers, strings and None. silent: types that say nothing by their value.
  OperandReader(const pybind11::dict& codes, Types tensors, Types told, Types silent,
                pybind11::object strided, pybind11::type any_tensor)
      : tensors_(std::move(tensors)),
        told_(std::move(told)),
        silent_(std::move(silent)),
        strided_(std::move(strided)),
        any_tensor_(std::move(any_tensor)),
        kept_(codes) {
    for (const auto& [dtype, code] : codes)
      codes_.emplace(dtype.ptr(), static_cast<Dtype>(code.cast<int>()));
  }

  // tensors: whether they are to be read; else only the text is wanted.
  Operands read(pybind11::handle given, bool tensors) const {
    Operands found;
    found.wanted = tensors;
    look(given.ptr(), found, 0);
    if (found.only_tensors) found.text.clear();
    return found;
  }

 private:
  static constexpr int kDepth = 32;  // of containers in containers; a cycle ends here

  void look(PyObject* value, Operands& found, int depth) const {
    if (!found.readable) return;
    if (is_one_of(value, tensors_)) {
      found.text += 'T';
      if (found.wanted && !take(value, found)) found.readable = false;
    } else if (PyTuple_Check(value) || PyList_Check(value)) {
      if (depth == kDepth) return not_looked_into(value, found);
      found.text += '[';
      const bool is_list = PyList_Check(value);
      for (Py_ssize_t i = 0; i < (is_list ? PyList_GET_SIZE(value) : PyTuple_GET_SIZE(value)); ++i) {
        look(is_list ? PyList_GET_ITEM(value, i) : PyTuple_GET_ITEM(value, i), found, depth + 1);
        found.text += ',';
      }
      found.text += ']';
    } else if (PyDict_Check(value)) {
      if (depth == kDepth) return not_looked_into(value, found);
      found.text += '{';
      PyObject *key, *item;
      for (Py_ssize_t at = 0; PyDict_Next(value, &at, &key, &item);) {
        look(key, found, depth + 1);
        found.text += ':';
        look(item, found, depth + 1);
        found.text += ',';
      }
      found.text += '}';
    } else if (value == Py_None || PyBool_Check(value) || PyLong_CheckExact(value) ||
               PyFloat_CheckExact(value) || PyUnicode_CheckExact(value) ||
               PyComplex_CheckExact(value) || is_one_of(value, told_)) {
      found.only_tensors = false;
      found.text += pybind11::repr(value).cast<std::string>();
    } else if (!is_one_of(value, silent_)) {
      if (PyObject_IsInstance(value, any_tensor_.ptr()) == 1)
        found.readable = !found.wanted;
      else
        not_looked_into(value, found);
    }
  }

  static void not_looked_into(PyObject* value, Operands& found) {
    found.unknown.push_back(pybind11::type::of(value));
  }

  bool take(PyObject* value, Operands& found) const {
    const pybind11::handle tensor(value);
    const auto code = codes_.find(get(tensor, dtype_).ptr());
    if (code == codes_.end() || get(tensor, is_cpu_).ptr() != Py_True ||
        get(tensor, layout_).ptr() != strided_.ptr() || call(tensor, is_neg_).ptr() == Py_True ||
        call(tensor, is_conj_).ptr() == Py_True || get(tensor, is_nested_).ptr() == Py_True)
      return false;
    DigestedTensor taken{code->second, nullptr, {}};
    taken.layout.shape = numbers(get(tensor, shape_));
    taken.layout.strides = numbers(call(tensor, stride_));
    const int64_t size = element_bytes(code->second);
    int64_t elements = 1, reach = 1;
    for (size_t i = 0; i < taken.layout.shape.size(); ++i) {
      elements *= taken.layout.shape[i];
      reach += (taken.layout.shape[i] - 1) * taken.layout.strides[i];
    }
    if (elements != 0) {
      taken.data = reinterpret_cast<const void*>(number(call(tensor, data_ptr_)));
      const int64_t offset = number(call(tensor, storage_offset_));
      const int64_t room = number(call(call(tensor, storage_), nbytes_));
      if (taken.data == nullptr || (offset + reach) * size > room) return false;
    }
    found.bytes += elements * size;
    found.tensors.push_back(std::move(taken));
    return true;
  }

  static bool is_one_of(PyObject* value, const Types& types) {
    const auto* const type = reinterpret_cast<PyObject*>(Py_TYPE(value));
    return std::any_of(types.begin(), types.end(), [&](auto& one) { return one.ptr() == type; });
  }
  static int64_t number(const pybind11::object& value) {
    const int64_t found = PyLong_AsLongLong(value.ptr());
    if (found == -1 && PyErr_Occurred() != nullptr) throw pybind11::error_already_set();
    return found;
  }
  static std::vector<int64_t> numbers(const pybind11::object& sizes) {
    if (!PyTuple_Check(sizes.ptr())) throw pybind11::type_error("sizes that are no tuple");
    std::vector<int64_t> found(PyTuple_GET_SIZE(sizes.ptr()));
    for (size_t i = 0; i < found.size(); ++i)
      found[i] = number(pybind11::reinterpret_borrow<pybind11::object>(
          PyTuple_GET_ITEM(sizes.ptr(), static_cast<Py_ssize_t>(i))));
    return found;
  }
  static pybind11::object get(pybind11::handle tensor, const pybind11::str& name) {
    return checked(PyObject_GetAttr(tensor.ptr(), name.ptr()));
  }
  static pybind11::object call(pybind11::handle tensor, const pybind11::str& method) {
    return checked(PyObject_CallMethodNoArgs(tensor.ptr(), method.ptr()));
  }
  static pybind11::object checked(PyObject* found) {
    if (found == nullptr) throw pybind11::error_already_set();
    return pybind11::reinterpret_steal<pybind11::object>(found);
  }
  static pybind11::str name(const char* text) {
    return pybind11::reinterpret_steal<pybind11::str>(PyUnicode_InternFromString(text));
  }

  Types tensors_, told_, silent_;
  pybind11::object strided_;
  pybind11::type any_tensor_;
  pybind11::dict kept_;  // so that the dtypes stay where they are
  std::unordered_map<PyObject*, Dtype> codes_;
  pybind11::str dtype_ = name("dtype"), is_cpu_ = name("is_cpu"), layout_ = name("layout"),
                is_neg_ = name("is_neg"), is_conj_ = name("is_conj"),
                is_nested_ = name("is_nested"), shape_ = name("shape"), stride_ = name("stride"),
                data_ptr_ = name("data_ptr"), storage_ = name("untyped_storage"),
                storage_offset_ = name("storage_offset"), nbytes_ = name("nbytes");
};

// Whether the elements lie side by side in memory, in whatever order of the dimensions.
inline bool is_dense(const Layout& layout) {
  std::vector<std::pair<int64_t, int64_t>> steps;
  for (size_t i = 0; i < layout.shape.size(); ++i)
    if (layout.shape[i] != 1) steps.emplace_back(layout.strides[i], layout.shape[i]);
  std::sort(steps.begin(), steps.end());
  int64_t expected = 1;
  for (const auto& [stride, size] : steps) {
    if (stride != expected) return false;
    expected *= size;
  }
  return true;
}

// Whether these are tensors only, alike in dtype, shape, strides and every bit. False says nothing:
// the tensors may be equal and lie in memory in ways that are not looked at here.
inline bool surely_equal(const Operands& one, const Operands& other, int threads) {
  const auto only_tensors = [](const Operands& found) {
    return found.readable && found.text.empty() && found.unknown.empty();
  };
  if (!only_tensors(one) || !only_tensors(other) || one.tensors.size() != other.tensors.size())
    return false;
  struct Piece {
    const char *a, *b;
    int64_t bytes;
  };
  constexpr int64_t kPiece = 1 << 18;
  std::vector<Piece> pieces;
  for (size_t i = 0; i < one.tensors.size(); ++i) {
    const DigestedTensor &a = one.tensors[i], &b = other.tensors[i];
    if (a.dtype != b.dtype || a.layout.shape != b.layout.shape) return false;
    int64_t bytes = element_bytes(a.dtype);
    for (int64_t size : a.layout.shape) bytes *= size;
    if (bytes == 0) continue;
    if (a.layout.strides != b.layout.strides || !is_dense(a.layout)) return false;
    for (int64_t at = 0; at < bytes; at += kPiece)
      pieces.push_back({static_cast<const char*>(a.data) + at,
                        static_cast<const char*>(b.data) + at, std::min(kPiece, bytes - at)});
  }
  std::atomic<bool> equal{true};
  std::atomic<size_t> next{0};
  parallel_run(std::min<int64_t>(threads, static_cast<int64_t>(pieces.size())), [&](int) {
    for (size_t i = next++; i < pieces.size() && equal.load(std::memory_order_relaxed); i = next++)
      if (std::memcmp(pieces[i].a, pieces[i].b, static_cast<size_t>(pieces[i].bytes)) != 0)
        equal.store(false, std::memory_order_relaxed);
  });
  return equal;
}

}  // namespace ndp
