// Compares kernels with the reference, call by call: same inputs, outputs that begin alike, then the same bytes.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "fenced.h"
#include "kernels.h"

namespace potluck {

enum class Kind { floats, ints, bytes };

// What a kernel writes. Begins as a copy of `start`, or poisoned where that is null.
struct Output {
  Kind kind;
  size_t count;
  const void* start = nullptr;
  size_t bytes() const { return kind == Kind::bytes ? count : count * 4; }
};

// Kernels under test and what was found out about them.
struct Subject {
  const char* name;
  const Kernels* kernels;
  int64_t calls = 0, values = 0, different = 0;
};

// What the results of a function were like: a test whose data does not vary shows nothing.
struct Variety {
  std::set<uint32_t> distinct;  // up to kMostDistinct
  int64_t nans = 0;
};

class Checks {
 public:
  using Run = std::function<int64_t(const Kernels&, const std::vector<void*>& out)>;

  explicit Checks(std::vector<Subject> subjects) : subjects_(std::move(subjects)) {}

  // Runs `run` with the reference and with every subject. What it returns and all it wrote must be the same; a NaN is a NaN.
  void compare(const char* function, const std::string& where, const std::vector<Output>& outputs, const Run& run);

  const std::vector<Subject>& subjects() const { return subjects_; }
  const std::map<std::string, Variety>& functions() const { return functions_; }
  // Of all results of the reference (FNV-1a), to compare with other processors'.
  uint64_t hash() const { return hash_; }

 private:
  void note(Variety& variety, Kind kind, const uint8_t* data, size_t count);
  void differs(Subject& subject, const std::string& what);

  uint64_t hash_ = 0xcbf29ce484222325u;

  std::vector<Subject> subjects_;
  std::map<std::string, Variety> functions_;
};

std::string text(const char* format, ...) __attribute__((format(printf, 1, 2)));

// What runs now, for a handler of signals.
extern char running[256];

// Each runs its functions of Kernels on inputs of every kind.
void check_quantize(Checks& checks);
void check_rows(Checks& checks);
void check_sums(Checks& checks);
void check_products(Checks& checks);
void check_stores(Checks& checks);
void check_attention(Checks& checks);

// Of src/disk-io: it has files for instruction sets too. Says what differs; true where nothing does.
bool check_crc();

}  // namespace potluck
