// Which kernel runs: instruction sets of this CPU, and rows shared out to threads.
#include "dispatch.hpp"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#if defined(__linux__)
#include <sched.h>
#endif
#if defined(TERAZI_X86)
#include <cpuid.h>
#endif

namespace terazi {
namespace {

struct InstructionSet {
    std::string name;
    bool available;
    FirstNotFinite* first_not_finite;
    RoundGroups* round_groups;
    std::vector<Family> families;
};

#if defined(TERAZI_X86)
bool has_f16c() {
    unsigned a, b, c = 0, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
bool has_avx2() { return __builtin_cpu_supports("avx2") && has_f16c(); }
bool has_avx512() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

const std::vector<InstructionSet>& all_sets() {
#define TERAZI_BASELINE(name) baseline::name,
#define TERAZI_AVX2(name) avx2::name,
#define TERAZI_AVX512(name) avx512::name,
    static const std::vector<InstructionSet> sets = {
        {"baseline", true, baseline::first_not_finite, baseline::round_groups, {TERAZI_FAMILIES(TERAZI_BASELINE)}},
#if defined(TERAZI_X86)
        {"avx2", has_avx2(), avx2::first_not_finite, avx2::round_groups, {TERAZI_FAMILIES(TERAZI_AVX2)}},
        {"avx512", has_avx512(), avx512::first_not_finite, avx512::round_groups, {TERAZI_FAMILIES(TERAZI_AVX512)}},
#endif
    };
    return sets;
}

const InstructionSet* best_set() {
    const InstructionSet* best = nullptr;
    for (const auto& set : all_sets())
        if (set.available) best = &set;
    return best;
}

std::atomic<const InstructionSet*>& current() {
    static std::atomic<const InstructionSet*> set{best_set()};
    return set;
}

int usable_cores() {
#if defined(__linux__)
    cpu_set_t mask;
    if (sched_getaffinity(0, sizeof mask, &mask) == 0) return std::max(1, CPU_COUNT(&mask));
#endif
    return std::max(1u, std::thread::hardware_concurrency());
}

}  // namespace

std::vector<std::string> instruction_sets() {
    std::vector<std::string> names;
    for (const auto& set : all_sets())
        if (set.available) names.push_back(set.name);
    return names;
}

bool use_instruction_set(const std::string& name) {
    for (const auto& set : all_sets()) {
        if (set.name != name || !set.available) continue;
        current() = &set;
        return true;
    }
    return false;
}

const std::string& instruction_set() { return current().load()->name; }

const Kernel* find_kernel(int type) {
    for (const Family& family : current().load()->families)
        for (int i = 0; i < family.count; ++i)
            if (family.kernels[i].type == type) return &family.kernels[i];
    return nullptr;
}

void for_row_spans(int64_t rows, int64_t columns, int threads,
                   const std::function<void(int64_t, int64_t)>& work) {
    constexpr int64_t SPAN_WEIGHTS = 1 << 16;  // 256 kB of floats: stays in a core's cache
    constexpr int64_t SPAN_ROWS = 16;          // some types work on as many rows at once as a vector has lanes
    const int64_t workers = threads > 0 ? threads : usable_cores();
    const int64_t fair = (rows + workers - 1) / workers;
    const int64_t span = std::max<int64_t>(
        1, std::min(fair, std::max(SPAN_ROWS, SPAN_WEIGHTS / std::max<int64_t>(1, columns))));
    const int64_t spans = (rows + span - 1) / span;

    std::atomic<int64_t> next{0};
    std::exception_ptr failure;
    std::mutex guard;
    auto run = [&] {
        try {
            for (int64_t i; (i = next++) < spans;) work(i * span, std::min(rows, (i + 1) * span));
        } catch (...) {
            next = spans;
            const std::lock_guard lock(guard);
            failure = std::current_exception();
        }
    };
    std::vector<std::thread> helpers;
    try {
        for (int64_t k = 1; k < std::min(workers, spans); ++k) helpers.emplace_back(run);
    } catch (const std::system_error&) {
        // The system gives no more threads: those that started share the work.
    }
    run();
    for (auto& helper : helpers) helper.join();
    if (failure) std::rethrow_exception(failure);
}

int64_t first_not_finite(const float* x, int64_t count) { return current().load()->first_not_finite(x, count); }
RoundGroups* group_rounder() { return current().load()->round_groups; }

}  // namespace terazi
