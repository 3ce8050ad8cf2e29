// Which kernel runs: instruction sets of this CPU, and rows shared out to threads.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "groups.hpp"
#include "kernels.hpp"

namespace terazi {

// Names of the instruction sets that this CPU has, best last.
std::vector<std::string> instruction_sets();
// Makes every later call use one of them; false when this CPU has no such set.
bool use_instruction_set(const std::string& name);
const std::string& instruction_set();

// The kernel of a type for the instruction set in use; null when the type has none.
const Kernel* find_kernel(int type);

// Calls work(first, last) for spans of rows until all are done, on `threads` threads (0: every core that this
// process may run on). `columns` decides how many rows make a span worth a thread.
void for_row_spans(int64_t rows, int64_t columns, int threads, const std::function<void(int64_t, int64_t)>& work);

// By the instruction set in use; see kernels.hpp and groups.hpp.
int64_t first_not_finite(const float* x, int64_t count);
RoundGroups* group_rounder();

}  // namespace terazi
