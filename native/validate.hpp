// What stored blocks may not hold: scales that are not finite.
#pragma once
#include <cstdint>

namespace terazi {

// Index of the first block of a type that ggml's own check refuses, or -1; -2 for a type that it does not know.
int64_t first_invalid_block(int type, const uint8_t* blocks, int64_t count);

}  // namespace terazi
