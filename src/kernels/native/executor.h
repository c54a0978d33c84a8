// Runs the steps of a pass on the threads of a pool. Every item of work writes memory that no other item of its phase
// touches, and what tiles add are integers, so results do not depend on how items fall on threads.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "model.h"

namespace potluck {

enum class Op {
  begin = 0,
  tiles = 1,
  end = 2,
  head_begin = 3,
  head_tiles = 4,
  expert_tiles = 5,
  squares = 6,       // sums of squares of the queries and keys of tiles, into `partial`
  square_norms = 7,  // those of all devices become norm factors; clears `partial`
};

struct PlacedTile {
  const uint8_t* at;
  int64_t slot;
};

struct Step {
  Op op;
  int64_t layer;
  int half;  // 0 attention, 1 ffn
  size_t first_tile, tile_count;
};

struct Program {
  std::vector<Step> steps;
  std::vector<PlacedTile> tiles;
};

// One run. The owner validated the program against the model.
class Job : public Task {
 public:
  Job(std::shared_ptr<Model> model, std::shared_ptr<const Program> program)
      : model_(std::move(model)), program_(std::move(program)) {}

  void work(Pool& pool, int thread) override;
  // Called on one thread when only the head is left to compute.
  virtual void nearly_done() {}
  const Model& model() const { return *model_; }
  Model& model() { return *model_; }
  int64_t saturated() const;

 private:
  friend class ThreadRun;
  std::shared_ptr<Model> model_;
  std::shared_ptr<const Program> program_;
};

}  // namespace potluck
