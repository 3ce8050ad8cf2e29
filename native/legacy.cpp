// Types with blocks of 32 weights: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1.
#include "half.hpp"
#include "kernels.hpp"

namespace terazi::TERAZI_ISA {
extern const Family legacy = {nullptr, 0};
}  // namespace terazi::TERAZI_ISA
