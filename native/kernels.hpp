// The kernel table: what a family of types offers, and which families there are.
#pragma once
#include <cstdint>

namespace terazi {

// Encodes `rows` contiguous rows of `columns` finite weights. `importance` has `columns` entries or is null.
// Rows go to `out` one after the other, `columns / block_size * block_bytes` bytes each.
using Quantize = void(const float* x, uint8_t* out, int64_t rows, int64_t columns, const float* importance);
using Dequantize = void(const uint8_t* q, float* out, int64_t rows, int64_t columns);

struct Kernel {
    int type;  // GGUF tensor type id
    int block_size;
    int block_bytes;
    Quantize* quantize;      // null: there is no quantizer
    Dequantize* dequantize;  // null: cannot be decoded
};

struct Family {
    const Kernel* kernels;
    int count;
};

// One line per family: the source `<name>.cpp` defines `const Family <name>` in the namespace TERAZI_ISA and is
// compiled once for every instruction set. A new family is a line here and a name in CMakeLists.txt.
#define TERAZI_FAMILIES(X) \
    X(floats)              \
    X(legacy)              \
    X(k_quants)            \
    X(iq1)                 \
    X(iq2)                 \
    X(iq3)                 \
    X(iq4)                 \
    X(fp4)                 \
    X(ternary)             \
    X(binary)

// Index of the first NaN or infinity, or -1; defined in floats.cpp.
using FirstNotFinite = int64_t(const float* x, int64_t count);

#define TERAZI_DECLARE(name) extern const Family name;
#define TERAZI_DECLARE_SET(set)          \
    namespace set {                      \
    TERAZI_FAMILIES(TERAZI_DECLARE)      \
    FirstNotFinite first_not_finite;     \
    }
TERAZI_DECLARE_SET(baseline)
TERAZI_DECLARE_SET(avx2)
TERAZI_DECLARE_SET(avx512)
#undef TERAZI_DECLARE_SET
#undef TERAZI_DECLARE

}  // namespace terazi
