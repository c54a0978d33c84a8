// All kernels there are, also those of other processors. Knows nothing of Node.js.
#pragma once
#include <vector>

#include "kernels.h"

namespace potluck {

struct Variant {
  const char* name;
  const Kernels* kernels;  // null where this build has it not
  const char* (*lacks)();

  // Null when it can run here, else the reason.
  const char* why_not() const;
};

// Fastest first; ends with the reference, which runs everywhere.
const std::vector<Variant>& variants();

}  // namespace potluck
