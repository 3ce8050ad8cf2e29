// Types with super-blocks of 256 weights: Q2_K to Q6_K, Q8_K.
#include "half.hpp"
#include "kernels.hpp"

namespace terazi::TERAZI_ISA {
extern const Family k_quants = {nullptr, 0};
}  // namespace terazi::TERAZI_ISA
