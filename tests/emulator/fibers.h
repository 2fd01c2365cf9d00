// What the stand-in driver needs from the scheduler.
#pragma once
#include <cstdint>
namespace emu {
// The next number of a sequence that EMU_SEED fixes. Thread-safe.
uint64_t random_number();
// Gives back what `launch` keeps for this machine thread.
void end_thread();
} // namespace emu
