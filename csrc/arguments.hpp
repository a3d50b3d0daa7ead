// What the arguments of an op are, read by Python's own API: it takes a fifth of the time that it
// takes in Python. Included by bindings.cpp alone.
#pragma once

#include <pybind11/pybind11.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace ndp {

enum class Fit { no = 0, yes = 1, with_gradient = 2 };

// The arguments that an op takes: for each of them the types of its values and, where one of them
// is list, those of a list's elements.
class Arguments {
 public:
  using Types = std::vector<pybind11::type>;

  Arguments(std::vector<std::pair<Types, Types>> kinds, Types tensors, pybind11::object strided)
      : kinds_(std::move(kinds)), tensors_(std::move(tensors)), strided_(std::move(strided)) {}

  // Whether all of these are of such types, and all tensors dense on the CPU, holding their numbers
  // as they are (no negative or zero that is still to be carried out); and whether one of them
  // requires a gradient.
  Fit look(const pybind11::tuple& given) const {
    if (given.size() > kinds_.size()) return Fit::no;
    Fit fit = Fit::yes;
    for (size_t i = 0; i < given.size() && fit != Fit::no; ++i) {
      const auto& [types, elements] = kinds_[i];
      PyObject* const value = PyTuple_GET_ITEM(given.ptr(), i);
      look(value, types, fit);
      if (!PyList_CheckExact(value)) continue;
      for (Py_ssize_t k = 0; k < PyList_GET_SIZE(value) && fit != Fit::no; ++k)
        look(PyList_GET_ITEM(value, k), elements, fit);
    }
    return fit;
  }

 private:
  static bool is_one_of(PyObject* value, const Types& types) {
    const auto* const type = reinterpret_cast<PyObject*>(Py_TYPE(value));
    return std::any_of(types.begin(), types.end(), [&](auto& one) { return one.ptr() == type; });
  }

  void look(PyObject* value, const Types& types, Fit& fit) const {
    if (!is_one_of(value, types)) {
      fit = Fit::no;
    } else if (is_one_of(value, tensors_)) {
      const pybind11::handle tensor(value);
      if (!is(tensor, is_cpu_, Py_True) || !is(tensor, layout_, strided_.ptr()) ||
          !is(tensor, is_nested_, Py_False) || says(tensor, is_neg_) || says(tensor, is_zero_))
        fit = Fit::no;
      else if (is(tensor, requires_grad_, Py_True))
        fit = Fit::with_gradient;
    }
  }

  static bool is(pybind11::handle tensor, const pybind11::str& name, PyObject* value) {
    return checked(PyObject_GetAttr(tensor.ptr(), name.ptr())).ptr() == value;
  }
  static bool says(pybind11::handle tensor, const pybind11::str& method) {
    return checked(PyObject_CallMethodNoArgs(tensor.ptr(), method.ptr())).ptr() != Py_False;
  }
  static pybind11::object checked(PyObject* found) {
    if (found == nullptr) throw pybind11::error_already_set();
    return pybind11::reinterpret_steal<pybind11::object>(found);
  }
  static pybind11::str name(const char* text) {
    return pybind11::reinterpret_steal<pybind11::str>(PyUnicode_InternFromString(text));
  }

  std::vector<std::pair<Types, Types>> kinds_;
  Types tensors_;
  pybind11::object strided_;
  pybind11::str is_cpu_ = name("is_cpu"), layout_ = name("layout"), is_nested_ = name("is_nested"),
                is_neg_ = name("is_neg"), is_zero_ = name("_is_zerotensor"), requires_grad_ = name("requires_grad");
};

}  // namespace ndp
