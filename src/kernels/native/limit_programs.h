// Programs that show what a processor can do at most, one thread of them: reading memory, and 8-bit dot products.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace potluck {

struct ReadProgram {
  const char* name;
  // Reads `bytes` (a multiple of 4096) from `at` (64-byte aligned) once; what it returns depends on all of them.
  uint64_t (*read)(const uint8_t* at, size_t bytes);
};

struct DotProgram {
  const char* name;
  // Does `rounds` times kMultiplyAdds multiply-adds of 8-bit numbers in registers.
  void (*run)(int64_t rounds);
  // Multiply-adds of one round.
  int64_t multiply_adds;
};

// Those that this processor can run; the fastest is to be found out by running them.
const std::vector<ReadProgram>& read_programs();
// Those that this processor can run, what is newest first. The name tells the instruction.
const std::vector<DotProgram>& dot_programs();

}  // namespace potluck
