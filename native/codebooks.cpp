// Codebooks of the IQ types: the points a group of weights may take, and what encoding needs to find the best one.
#include "codebooks.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

namespace terazi {
namespace {

#include "codebook_points.inc"

struct Shape {
    const uint64_t* points;
    int dims, bits, levels;
    int distances;         // how many different distances a neighbour list goes out to
    uint8_t magnitude[8];  // of each digit, decoded
};

Shape shape_of(Codebook book) {
    switch (book) {
        case Codebook::iq1: return {IQ1_POINTS, 8, 2, 3, 3, {255, 0, 1}};
        case Codebook::iq2_xxs: return {IQ2_XXS_POINTS, 8, 2, 3, 2, {8, 25, 43}};
        case Codebook::iq2_xs: return {IQ2_XS_POINTS, 8, 2, 3, 2, {8, 25, 43}};
        case Codebook::iq2_s: return {IQ2_S_POINTS, 8, 2, 3, 1, {8, 25, 43}};
        case Codebook::iq3_xxs: return {IQ3_XXS_POINTS, 4, 3, 8, 2, {4, 12, 20, 28, 36, 44, 52, 62}};
        case Codebook::iq3_s: return {IQ3_S_POINTS, 4, 3, 8, 3, {1, 3, 5, 7, 9, 11, 13, 15}};
    }
    return {};
}

// The keys of all rows of `dims` digits, ascending.
std::vector<uint16_t> all_keys(const Shape& shape, int dims) {
    std::vector<uint16_t> keys{0};
    for (int i = dims - 1; i >= 0; --i) {
        std::vector<uint16_t> longer;
        for (uint16_t key : keys)
            for (int digit = 0; digit < shape.levels; ++digit)
                longer.push_back(uint16_t(key | digit << shape.bits * (dims - 1 - i)));
        keys = std::move(longer);
    }
    std::sort(keys.begin(), keys.end());
    return keys;
}

// The keys of the points by code.
std::vector<uint16_t> points_of(const Shape& shape) {
    const auto keys = all_keys(shape, shape.dims);
    std::vector<uint16_t> points;
    for (size_t i = 0; i < keys.size(); ++i)
        if (shape.points[i / 64] >> i % 64 & 1) points.push_back(keys[i]);
    return points;
}

int squared_distance(int a, int b, int bits) {
    int sum = 0;
    for (; a | b; a >>= bits, b >>= bits) {
        const int step = (a & ((1 << bits) - 1)) - (b & ((1 << bits) - 1));
        sum += step * step;
    }
    return sum;
}

// Sixteen distances at once; every codebook's size is a multiple of 16.
typedef uint8_t Distances __attribute__((vector_size(16)));
using Row = std::vector<Distances>;

// Distances from every half of a key to that half of every point: their sums are the distances from whole keys.
std::vector<Row> half_distances(const Shape& shape, const std::vector<uint16_t>& halves,
                                const std::vector<uint16_t>& points, int shift) {
    const int mask = (1 << shape.bits * shape.dims / 2) - 1;
    std::vector<Row> result;
    for (uint16_t half : halves) {
        std::vector<uint8_t> to_half(size_t(mask) + 1);
        for (uint16_t other : halves) to_half[other] = uint8_t(squared_distance(half, other, shape.bits));
        Row row(points.size() / 16);
        for (size_t i = 0; i < points.size(); ++i) row[i / 16][i % 16] = to_half[points[i] >> shift & mask];
        result.push_back(std::move(row));
    }
    return result;
}

// The smallest distance above `floor`.
uint8_t next_distance(const Row& row, uint8_t floor) {
    Distances least = ~Distances{};
    for (Distances d : row) {
        d |= d <= floor;  // what does not count becomes 255
        least = d < least ? d : least;
    }
    uint8_t next = 255;
    for (int i = 0; i < 16; ++i) next = std::min(next, least[i]);
    return next;
}

// Appends the points at the first `count` different distances, nearest first, equally near ones by code.
void append_nearest(std::vector<uint16_t>& keys, const Row& row, const std::vector<uint16_t>& points, int count) {
    constexpr int MOST = 3;
    uint8_t levels[MOST] = {};
    for (int i = 0; i < count; ++i) levels[i] = next_distance(row, i ? levels[i - 1] : 0);
    static thread_local std::vector<uint16_t> at[MOST];
    for (size_t i = 0; i < row.size(); ++i) {
        const auto within = row[i] <= levels[count - 1];
        uint64_t found[2];
        memcpy(found, &within, sizeof found);
        for (size_t half = 0; half < 2; ++half)
            for (; found[half]; found[half] &= ~(uint64_t(255) << __builtin_ctzll(found[half]))) {
                const size_t j = 8 * half + size_t(__builtin_ctzll(found[half])) / 8;
                int level = 0;
                while (row[i][j] != levels[level]) ++level;
                at[level].push_back(points[16 * i + j]);
            }
    }
    for (int i = 0; i < count; ++i) {
        keys.insert(keys.end(), at[i].begin(), at[i].end());
        at[i].clear();
    }
}

struct Kept {
    std::vector<Neighbours::List> lists;
    std::vector<uint16_t> keys, codes;
    Neighbours view;
};

Kept make_neighbours(const Shape& shape) {
    const auto points = points_of(shape);
    const int half_bits = shape.bits * shape.dims / 2;
    const auto halves = all_keys(shape, shape.dims / 2);
    const auto low = half_distances(shape, halves, points, 0);
    const auto high = half_distances(shape, halves, points, half_bits);

    Kept result;
    result.lists.resize(size_t(1) << 2 * half_bits);
    result.codes.resize(size_t(1) << 2 * half_bits);
    std::vector<bool> is_point(size_t(1) << 2 * half_bits);
    for (size_t code = 0; code < points.size(); ++code) {
        result.codes[points[code]] = uint16_t(code);
        is_point[points[code]] = true;
    }
    Row row(points.size() / 16);
    for (size_t h = 0; h < halves.size(); ++h)
        for (size_t l = 0; l < halves.size(); ++l) {
            const size_t key = size_t(halves[h]) << half_bits | halves[l];
            if (is_point[key]) continue;
            for (size_t i = 0; i < row.size(); ++i) row[i] = high[h][i] + low[l][i];
            const size_t start = result.keys.size();
            append_nearest(result.keys, row, points, shape.distances);
            result.lists[key] = {uint32_t(start), uint32_t(result.keys.size() - start)};
            while (result.keys.size() % Neighbours::PADDING) result.keys.push_back(result.keys.back());
        }
    result.view = {result.lists.data(), result.keys.data(), result.codes.data()};
    return result;  // moving vectors keeps their addresses
}

std::vector<uint64_t> make_bytes(const Shape& shape) {
    std::vector<uint64_t> bytes;
    for (uint16_t key : points_of(shape)) {
        uint64_t word = 0;
        for (int i = 0; i < shape.dims; ++i)
            word |= uint64_t(shape.magnitude[key >> shape.bits * i & ((1 << shape.bits) - 1)]) << 8 * i;
        bytes.push_back(word);
    }
    return bytes;
}

}  // namespace

const uint64_t* codebook_bytes(Codebook book) {
    static const auto all = [] {
        std::array<std::vector<uint64_t>, 6> made;
        for (size_t i = 0; i < made.size(); ++i) made[i] = make_bytes(shape_of(Codebook(i)));
        return made;
    }();
    return all[size_t(book)].data();
}

template <Codebook BOOK>
static const Neighbours& kept() {
    static const Kept made = make_neighbours(shape_of(BOOK));
    return made.view;
}

const Neighbours& codebook_neighbours(Codebook book) {
    switch (book) {
        case Codebook::iq1: return kept<Codebook::iq1>();
        case Codebook::iq2_xxs: return kept<Codebook::iq2_xxs>();
        case Codebook::iq2_xs: return kept<Codebook::iq2_xs>();
        case Codebook::iq2_s: return kept<Codebook::iq2_s>();
        case Codebook::iq3_xxs: return kept<Codebook::iq3_xxs>();
        case Codebook::iq3_s: break;
    }
    return kept<Codebook::iq3_s>();
}

}  // namespace terazi
