// Codebooks of the IQ types: the points a group of weights may take, and what encoding needs to find the best one.
//
// A point is a row of small digits (8 of 0..2, or 4 of 0..7) packed into a key, first digit lowest. The stored code of
// a point is its rank among the keys. Encoding searches magnitudes 2 * digit + 1 (in IQ1 digit - 1).
// Plain pointers only: this header is compiled for several instruction sets, which must share no inline function.
#pragma once
#include <cstdint>

namespace terazi {

enum class Codebook { iq1, iq2_xxs, iq2_xs, iq2_s, iq3_xxs, iq3_s };

// What each code decodes to: the digits' magnitudes as bytes, first lowest (signed in IQ1), 8 or 4 of them.
const uint64_t* codebook_bytes(Codebook book);

struct Neighbours {
    struct List {
        uint32_t start, count;  // count 0: the key is a point itself
    };
    static constexpr int PADDING = 16;
    const List* lists;      // by key
    const uint16_t* keys;   // nearest points first, equally near ones by code; each list padded with its last
    const uint16_t* codes;  // by key; 0 where there is no point
};

// For each key that is no point: the points at the 1, 2 or 3 smallest distances from it, as ggml lists them.
// Made at the first call (a few milliseconds) and kept.
const Neighbours& codebook_neighbours(Codebook book);

}  // namespace terazi
