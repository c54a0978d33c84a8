// Runs every function of every variant of the kernels that this processor has against the reference. One line a variant,
// and a hash of the reference's results, the same on every processor; exits with 1 where a result differs, the data did not vary,
// or no variant ran.
#include <csignal>
#include <cstdio>
#include <unistd.h>

#include "checks.h"
#include "cpu_features.h"
#include "variants.h"

namespace potluck {
namespace {

constexpr size_t kFunctions = sizeof(Kernels) / sizeof(void*) - 1;
constexpr size_t kLeastDistinct = 100;

const char* why_not(const Variant& v) {
#if defined(POTLUCK_AVX_VNNI_AS_EVEX)
  // Compiled for AVX-512 VNNI and VL: the same instructions.
  if (v.kernels == &kAvxVnniKernels) return lacks_avx512_vnni();
#endif
  return v.why_not();
}

std::vector<Subject> find_subjects() {
  std::vector<Subject> found;
  for (const Variant& v : variants()) {
    if (v.kernels == &kReferenceKernels) continue;
    if (const char* reason = why_not(v))
      std::printf("%s: not run: %s\n", v.name, reason);
    else
      found.push_back({v.name, v.kernels});
  }
  return found;
}

// Every function was called, and its results were of many kinds.
bool data_varied(const Checks& checks) {
  bool fine = checks.functions().size() == kFunctions;
  if (!fine) std::printf("%zu functions were called of %zu\n", checks.functions().size(), kFunctions);
  for (const auto& [name, variety] : checks.functions()) {
    const bool whole = name == "add_fixed" || name.compare(0, 5, "store") == 0;  // no floats
    if (variety.distinct.size() >= kLeastDistinct && (whole || variety.nans > 0)) continue;
    fine = false;
    std::printf("%s: the results do not vary: %zu values, %lld NaN\n", name.c_str(), variety.distinct.size(),
                (long long)variety.nans);
  }
  return fine;
}

void stop(int signal) {
  const char* what = signal == SIGILL ? "illegal instruction in " : "memory beyond its bounds in ";
  for (const char* part : {what, static_cast<const char*>(running), "\n"})
    if (write(1, part, std::strlen(part)) < 0) break;
  _exit(1);
}

int check_all() {
  Checks checks(find_subjects());
  check_quantize(checks);
  check_rows(checks);
  check_sums(checks);
  check_products(checks);
  check_stores(checks);
  check_attention(checks);
  bool fine = check_crc();
  fine = data_varied(checks) && !checks.subjects().empty() && fine;
  if (checks.subjects().empty()) std::printf("no variant ran\n");
  for (const Subject& s : checks.subjects()) {
    fine = fine && s.different == 0;
    std::printf("%s: %zu functions, %lld calls, %lld values, %lld differ\n", s.name, checks.functions().size(),
                (long long)s.calls, (long long)s.values, (long long)s.different);
  }
  std::printf("reference: %016llx\n", (unsigned long long)checks.hash());
  return fine ? 0 : 1;
}

}  // namespace
}  // namespace potluck

int main() {
  setvbuf(stdout, nullptr, _IOLBF, 1 << 16);
  for (const int signal : {SIGSEGV, SIGBUS, SIGILL}) std::signal(signal, potluck::stop);
  return potluck::check_all();
}
