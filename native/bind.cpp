// The Python face of the kernels: checked arrays in, arrays out, the GIL released in between.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <stdexcept>

#include "dispatch.hpp"
#include "validate.hpp"

namespace nb = nanobind;
using namespace terazi;

namespace {

using Floats = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Bytes = nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Importance = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T>
using Result = nb::ndarray<T, nb::numpy, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

const Kernel& kernel_of(int type, int64_t columns) {
    const Kernel* kernel = find_kernel(type);
    if (!kernel) throw std::invalid_argument("tensor type " + std::to_string(type) + " has no kernel");
    if (columns % kernel->block_size)
        throw std::invalid_argument(std::to_string(columns) + " columns are no whole number of blocks");
    return *kernel;
}

// The caller's array when it has the right shape, else a new one.
template <class T>
Result<T> result_array(std::optional<Result<T>> out, int64_t rows, int64_t columns, const char* dtype) {
    if (!out)
        return nb::cast<Result<T>>(
            nb::module_::import_("numpy").attr("empty")(nb::make_tuple(rows, columns), dtype));
    if (int64_t(out->shape(0)) != rows || int64_t(out->shape(1)) != columns)
        throw std::invalid_argument("out has the wrong shape");
    return *out;
}

Result<uint8_t> quantize(int type, Floats x, std::optional<Importance> importance, int threads,
                         std::optional<Result<uint8_t>> out) {
    const int64_t rows = int64_t(x.shape(0)), columns = int64_t(x.shape(1));
    const Kernel& kernel = kernel_of(type, columns);
    if (!kernel.quantize) throw std::invalid_argument("tensor type " + std::to_string(type) + " has no quantizer");
    if (importance && int64_t(importance->shape(0)) != columns)
        throw std::invalid_argument("importance needs one entry per column");
    const int64_t row_bytes = columns / kernel.block_size * kernel.block_bytes;
    auto result = result_array<uint8_t>(std::move(out), rows, row_bytes, "uint8");
    const float* source = x.data();
    const float* weight = importance ? importance->data() : nullptr;
    uint8_t* target = result.data();
    {
        const nb::gil_scoped_release release;
        for_row_spans(rows, columns, threads, [&](int64_t first, int64_t last) {
            const int64_t bad = first_not_finite(source + first * columns, (last - first) * columns);
            if (bad >= 0)
                throw std::invalid_argument("the value at row " + std::to_string(first + bad / columns) +
                                            ", column " + std::to_string(bad % columns) + " is not finite");
            kernel.quantize(source + first * columns, target + first * row_bytes, last - first, columns, weight);
        });
    }
    return result;
}

Result<float> dequantize(int type, Bytes q, int64_t columns, int threads, std::optional<Result<float>> out) {
    const int64_t rows = int64_t(q.shape(0));
    const Kernel& kernel = kernel_of(type, columns);
    if (!kernel.dequantize) throw std::invalid_argument("tensor type " + std::to_string(type) + " has no decoder");
    const int64_t row_bytes = columns / kernel.block_size * kernel.block_bytes;
    if (int64_t(q.shape(1)) != row_bytes) throw std::invalid_argument("rows have the wrong number of bytes");
    auto result = result_array<float>(std::move(out), rows, columns, "float32");
    const uint8_t* source = q.data();
    float* target = result.data();
    {
        const nb::gil_scoped_release release;
        for_row_spans(rows, columns, threads, [&](int64_t first, int64_t last) {
            kernel.dequantize(source + first * row_bytes, target + first * columns, last - first, columns);
        });
    }
    return result;
}

// Fills codes [rows, columns], scales and zeros [rows, groups]; see groups.hpp.
void round_groups(Floats x, int group_size, int bits, bool symmetric, bool half_quadratic,
                  std::optional<Importance> importance, std::optional<Floats> feedback, int threads, Result<uint8_t> codes, Result<float> scales,
                  Result<float> zeros) {
    const int64_t rows = int64_t(x.shape(0)), columns = int64_t(x.shape(1));
    if (group_size < 16 || group_size % 16 || columns % group_size)
        throw std::invalid_argument("a group needs a multiple of 16 columns, and a row whole groups");
    if (bits < 1 || bits > 8) throw std::invalid_argument("a code has 1 to 8 bits");
    const int64_t groups = columns / group_size;
    const auto wrong = [](const auto& array, int64_t m, int64_t n) {
        return int64_t(array.shape(0)) != m || int64_t(array.shape(1)) != n;
    };
    if ((importance && int64_t(importance->shape(0)) != columns) || (feedback && wrong(*feedback, columns, columns)) ||
        wrong(codes, rows, columns) || wrong(scales, rows, groups) || wrong(zeros, rows, groups))
        throw std::invalid_argument("an array has the wrong shape");
    const GroupRounding how{group_size, bits, symmetric, half_quadratic, importance ? importance->data() : nullptr,
                            feedback ? feedback->data() : nullptr};
    const float* source = x.data();
    uint8_t* to = codes.data();
    float *scale = scales.data(), *zero = zeros.data();
    const nb::gil_scoped_release release;
    for_row_spans(rows, columns, threads, [&](int64_t first, int64_t last) {
        const int64_t bad = first_not_finite(source + first * columns, (last - first) * columns);
        if (bad >= 0) throw std::invalid_argument("row " + std::to_string(first + bad / columns) + " is not finite");
        group_rounder()(how, source + first * columns, last - first, columns, to + first * columns,
                       scale + first * groups, zero + first * groups);
    });
}

// Index of the first block, counting along rows, that holds a scale which is not finite; -1 when all are good.
int64_t validate(int type, Bytes q, int64_t columns) {
    const Kernel& kernel = kernel_of(type, columns);
    if (int64_t(q.shape(1)) != columns / kernel.block_size * kernel.block_bytes)
        throw std::invalid_argument("rows have the wrong number of bytes");
    const uint8_t* blocks = q.data();
    const int64_t count = int64_t(q.shape(0)) * (columns / kernel.block_size);
    const nb::gil_scoped_release release;
    return first_invalid_block(type, blocks, count);
}

void choose(const std::string& name) {
    if (!use_instruction_set(name)) throw std::invalid_argument("this CPU has no instruction set " + name);
}

}  // namespace

NB_MODULE(_native, module) {
    using namespace nb::literals;
    module.def("quantize", &quantize, "type_id"_a, "x"_a, "importance"_a.none(), "threads"_a, "out"_a = nb::none());
    module.def("dequantize", &dequantize, "type_id"_a, "q"_a, "columns"_a, "threads"_a, "out"_a = nb::none());
    module.def("validate", &validate, "type_id"_a, "q"_a, "columns"_a);
    module.def("round_groups", &round_groups, "x"_a, "group_size"_a, "bits"_a, "symmetric"_a,
               "half_quadratic"_a, "importance"_a.none(), "feedback"_a.none(), "threads"_a, "codes"_a, "scales"_a, "zeros"_a);
    module.def("instruction_sets", &instruction_sets);
    module.def("instruction_set", &instruction_set);
    module.def("use_instruction_set", &choose, "name"_a);
}
