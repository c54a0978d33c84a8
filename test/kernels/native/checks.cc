#include "checks.h"

#include <cstdarg>
#include <cstdio>
#include <memory>

namespace potluck {
namespace {

constexpr size_t kMostDistinct = 4096;
constexpr int kMostShown = 8;

// All NaN are the same.
uint32_t word_at(Kind kind, const uint8_t* data, size_t i) {
  if (kind == Kind::bytes) return data[i];
  uint32_t word;
  std::memcpy(&word, data + i * 4, 4);
  return kind == Kind::floats && (word & 0x7fffffff) > 0x7f800000 ? 0x7fc00000 : word;
}

struct Call {
  std::vector<std::unique_ptr<FencedBytes>> memory;
  int64_t returned;

  Call(const Kernels& kernels, const std::vector<Output>& outputs, const Checks::Run& run) {
    std::vector<void*> out;
    for (const Output& o : outputs) {
      memory.push_back(std::make_unique<FencedBytes>(o.bytes()));
      if (o.start != nullptr && o.bytes() > 0) std::memcpy(memory.back()->data(), o.start, o.bytes());
      out.push_back(memory.back()->data());
    }
    returned = run(kernels, out);
  }
};

}  // namespace

char running[256];

std::string text(const char* format, ...) {
  char line[200];
  va_list list;
  va_start(list, format);
  std::vsnprintf(line, sizeof line, format, list);
  va_end(list);
  return line;
}

void Checks::note(Variety& variety, Kind kind, const uint8_t* data, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const uint32_t word = word_at(kind, data, i);
    hash_ = (hash_ ^ word) * 0x100000001b3u;
    if (variety.distinct.size() < kMostDistinct) variety.distinct.insert(word);
    if (kind == Kind::floats && word == 0x7fc00000) variety.nans++;
  }
}

void Checks::differs(Subject& subject, const std::string& what) {
  if (subject.different++ < kMostShown) std::printf("%s %s: %s\n", subject.name, running, what.c_str());
}

void Checks::compare(const char* function, const std::string& where, const std::vector<Output>& outputs, const Run& run) {
  std::snprintf(running, sizeof running, "%s (%s)", function, where.c_str());
  const Call expected(kReferenceKernels, outputs, run);
  for (size_t o = 0; o < outputs.size(); o++)
    note(functions_[function], outputs[o].kind, expected.memory[o]->data(), outputs[o].count);
  for (Subject& subject : subjects_) {
    std::snprintf(running, sizeof running, "%s (%s)", function, where.c_str());
    const Call got(*subject.kernels, outputs, run);
    subject.calls++;
    if (got.returned != expected.returned)
      differs(subject, text("returned %lld instead of %lld", (long long)got.returned, (long long)expected.returned));
    for (size_t o = 0; o < outputs.size(); o++) {
      subject.values += int64_t(outputs[o].count);
      if (!got.memory[o]->front_is_intact()) differs(subject, text("wrote before output %zu", o));
      for (size_t i = 0; i < outputs[o].count; i++) {
        const uint32_t mine = word_at(outputs[o].kind, got.memory[o]->data(), i);
        const uint32_t right = word_at(outputs[o].kind, expected.memory[o]->data(), i);
        if (mine != right) differs(subject, text("output %zu[%zu] is %08x instead of %08x", o, i, mine, right));
      }
    }
  }
}

}  // namespace potluck
