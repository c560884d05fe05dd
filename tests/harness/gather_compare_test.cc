// ExpectGathersTo, on every axis and type, and what it refuses.
#include "lockstep/runtime/elementwise.h"
#include "lockstep/tests/catch.h"
#include "lockstep/tests/harness/compare.h"
#include "lockstep/tests/harness/run_ranks.h"

namespace lockstep::testing {
namespace {

// What is wrong with one rank's part: 1 is added to one of its elements.
struct Spoiled {
  int rank = -1;
  bool last = false;
};

// Of a whole that counts 0, 1, 2, ... rank r holds r + 1 of the six slices along `axis`.
absl::Status PartsMakeTheWhole(Worker& worker, Communicator& comm, DType dtype, int axis,
                               Spoiled spoiled) {
  const Shape shape = {6, 6, 6};
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor whole, worker.Empty(shape, dtype));
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor flat, whole.Reshape({216}));
  for (std::int64_t i = 0; i < 216; ++i) {
    LOCKSTEP_ASSIGN_OR_RETURN(const Tensor element, flat.Slice(0, i, 1));
    LOCKSTEP_RETURN_IF_ERROR(Fill(worker, static_cast<double>(i), element));
  }
  const int rank = comm.rank();
  // Strided but for the first axis.
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor mine, whole.Slice(axis, rank * (rank + 1) / 2, rank + 1));
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor part, worker.Empty(mine.shape(), dtype));
  LOCKSTEP_RETURN_IF_ERROR(Copy(worker, mine, part));
  if (rank == spoiled.rank) {
    LOCKSTEP_ASSIGN_OR_RETURN(const Tensor parts, part.Reshape({part.size()}));
    LOCKSTEP_ASSIGN_OR_RETURN(const Tensor bad,
                              parts.Slice(0, spoiled.last ? part.size() - 1 : 0, 1));
    LOCKSTEP_RETURN_IF_ERROR(Fill(worker, 255, bad));
  }
  const bool as_slice = spoiled.rank < 0;
  return ExpectGathersTo(worker, comm, "y", as_slice ? mine : part, axis, whole, 0);
}

absl::Status Run(DType dtype, int axis, Spoiled spoiled,
                 std::vector<absl::Status>* each = nullptr) {
  return RunRanks(
      {.world_size = 3},
      [&](Worker& worker, Communicator& comm) {
        return PartsMakeTheWhole(worker, comm, dtype, axis, spoiled);
      },
      each);
}

TEST_CASE("a sharded result is gathered and compared with the whole, in every type") {
  for (const DType dtype : kAllDTypes) {
    INFO(Name(dtype));
    REQUIRE_OK(Run(dtype, -1, {}));
    CHECK(Says(Run(dtype, -1, {.rank = 2, .last = true}), "y: element [5, 5, 5] is 255, expected"));
  }
}

TEST_CASE("the first and the last element of each rank's part are compared, along each axis") {
  // The first slice of rank 0, 1 and 2 is 0, 1 and 3; the last is 0, 2 and 5.
  const int first[] = {0, 1, 3};
  const int last[] = {0, 2, 5};
  for (const int axis : {0, 1, 2, -1, -3}) {
    REQUIRE_OK(Run(DType::kFloat32, axis, {}));
    const auto counted = static_cast<std::size_t>(axis < 0 ? axis + 3 : axis);
    for (int rank = 0; rank < 3; ++rank) {
      for (const bool at_end : {false, true}) {
        Shape index = at_end ? Shape{5, 5, 5} : Shape{0, 0, 0};
        index[counted] = at_end ? last[rank] : first[rank];
        std::vector<absl::Status> each;
        CHECK(!Run(DType::kFloat32, axis, {.rank = rank, .last = at_end}, &each).ok());
        for (const absl::Status& status : each) {
          INFO("axis " << axis << ", rank " << rank << ": " << status.ToString());
          CHECK(Says(status, absl::StrCat("y: element ", ToString(index), " is 255")));
        }
      }
    }
  }
}

TEST_CASE("parts that cannot be joined are refused on every rank") {
  const struct {
    Shape part;
    DType dtype;
    int axis;
    Shape whole;
    const char* says;
  } cases[] = {
      {{2, 3}, DType::kFloat32, 2, {4, 3}, "joined along axis 2 to float32 [4, 3]"},
      {{2, 3}, DType::kFloat32, -3, {4, 3}, "joined along axis -3 to"},
      {{2, 3}, DType::kFloat32, 0, {4, 4}, "they may differ along axis 0 alone"},
      {{2, 3}, DType::kFloat32, 0, {5, 3}, "add up to"},
      {{2, 3}, DType::kFloat32, 0, {-4, 3}, "extents are at least 0"},
      {{2, 3}, DType::kFloat64, 0, {4, 3}, "y: is float64 [4, 3] on cpu, expected float32 [4, 3]"},
  };
  for (const auto& [part_shape, dtype, axis, whole_shape, says] : cases) {
    std::vector<absl::Status> each;
    double memory[40] = {};
    const Tensor expected = Tensor::View(memory, whole_shape, DType::kFloat32);
    const absl::Status status = RunRanks(
        {},
        [&, part_shape = part_shape, dtype = dtype, axis = axis](
            Worker& worker, Communicator& comm) -> absl::Status {
          LOCKSTEP_ASSIGN_OR_RETURN(const Tensor part, worker.Zeros(part_shape, dtype));
          return ExpectGathersTo(worker, comm, "y", part, axis, expected, 0);
        },
        &each);
    INFO(says << ": " << status.ToString());
    CHECK(Says(status, says));
    for (const absl::Status& of_rank : each) CHECK(!of_rank.ok());
  }
}

TEST_CASE("a part without memory is refused, and so are units that are none") {
  const auto run = [](Tensor part, double ulps) {
    return RunRanks({}, [&](Worker& worker, Communicator& comm) -> absl::Status {
      LOCKSTEP_ASSIGN_OR_RETURN(const Tensor whole, worker.Zeros({4}, DType::kFloat32));
      LOCKSTEP_ASSIGN_OR_RETURN(const Tensor zeros, worker.Zeros({2}, DType::kFloat32));
      return ExpectGathersTo(worker, comm, "y", part.size() == 0 ? zeros : part, 0, whole, ulps);
    });
  };
  REQUIRE_OK(run(Tensor(), 0));
  CHECK(Says(run(Tensor::View(nullptr, {2}, DType::kFloat32), 0), "null pointer"));
  CHECK(Says(run(Tensor(), -1), "at least 0"));
}

}  // namespace
}  // namespace lockstep::testing
