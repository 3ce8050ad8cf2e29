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

#define TERAZI_DECLARE(name) extern const Family name;
namespace baseline { TERAZI_FAMILIES(TERAZI_DECLARE) }
namespace avx2 { TERAZI_FAMILIES(TERAZI_DECLARE) }
namespace avx512 { TERAZI_FAMILIES(TERAZI_DECLARE) }
#undef TERAZI_DECLARE

}  // namespace terazi
