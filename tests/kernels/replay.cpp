// Runs the baseline kernels on cases from stdin, for CPUs that are only emulated here: see test_neon.py.
// A case: int32 type, rows, columns, has_importance, row_bytes; floats; importance. Out: the encoded rows, then those
// decoded again.
#include <cstdio>
#include <vector>

#include "../../native/kernels.hpp"

using namespace terazi;
#define TERAZI_BASELINE(name) baseline::name,

template <class T>
static std::vector<T> read(size_t count) {
    std::vector<T> values(count);
    if (fread(values.data(), sizeof(T), count, stdin) != count) values.clear();
    return values;
}

int main() {
    const Family families[] = {TERAZI_FAMILIES(TERAZI_BASELINE)};
    for (;;) {
        const auto head = read<int32_t>(5);
        if (head.empty()) return 0;
        const int64_t rows = head[1], columns = head[2];
        auto x = read<float>(rows * columns);
        const auto importance = read<float>(head[3] ? columns : 0);
        std::vector<uint8_t> q(rows * head[4]);
        for (const Family& family : families)
            for (int i = 0; i < family.count; ++i) {
                const Kernel& kernel = family.kernels[i];
                if (kernel.type != head[0]) continue;
                kernel.quantize(x.data(), q.data(), rows, columns, head[3] ? importance.data() : nullptr);
                kernel.dequantize(q.data(), x.data(), rows, columns);
            }
        fwrite(q.data(), 1, q.size(), stdout);
        fwrite(x.data(), sizeof(float), x.size(), stdout);
    }
}
