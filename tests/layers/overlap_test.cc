// What is overlapped, how a product is cut, and that no bit depends on it.
#include "lockstep/layers/overlap.h"

#include <chrono>
#include <numeric>

#include "lockstep/layers/column_parallel_linear.h"
#include "lockstep/layers/row_parallel_linear.h"
#include "lockstep/runtime/elementwise.h"
#include "lockstep/runtime/graph.h"
#include "lockstep/runtime/matmul.h"
#include "lockstep/runtime/random.h"
#include "lockstep/tests/catch.h"
#include "lockstep/tests/gpus.h"
#include "lockstep/tests/harness/child_process.h"
#include "lockstep/tests/ranks.h"

namespace lockstep::testing {
namespace {

constexpr int kMultiprocessors = 132;
using Sizes = std::vector<std::int64_t>;

// Enough for four waves on a GPU of 132 multiprocessors.
constexpr std::int64_t kTokens = 2048;
constexpr std::int64_t kFeatures = 8192;
constexpr std::int64_t kInner = 512;  // of a rank

// Two ranks, each on a GPU of its own if there are two; none without a GPU.
absl::StatusOr<Ranks> TwoRanks() {
  std::vector<Device> devices = Gpus();
  if (devices.size() > 2) devices.erase(devices.begin() + 2, devices.end());
  return Ranks::Create(2, {}, devices);
}

absl::StatusOr<Tensor> Random(Worker& worker, const Shape& shape, std::uint64_t seed) {
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor tensor, worker.Empty(shape, DType::kBFloat16));
  LOCKSTEP_RETURN_IF_ERROR(FillUniformBlock(worker, seed, /*bound=*/1, /*first_row=*/0,
                                            /*first_column=*/0, shape[1], tensor));
  return tensor;
}

absl::Status ExpectSameBits(Worker& worker, const Tensor& found, const Tensor& expected) {
  std::vector<unsigned char> bytes[2];
  for (const auto& [tensor, to] : {std::pair{&found, &bytes[0]}, {&expected, &bytes[1]}}) {
    to->resize(static_cast<std::size_t>(tensor->size()) * SizeOf(tensor->dtype()));
    LOCKSTEP_RETURN_IF_ERROR(
        Copy(worker, *tensor, Tensor::View(to->data(), tensor->shape(), tensor->dtype())));
  }
  if (bytes[0] == bytes[1]) return absl::OkStatus();
  return absl::InternalError("the bits differ");
}

}  // namespace

TEST_CASE("a wave is as many rows as a GPU has places for, but for four") {
  using internal::RowsPerWave;
  CHECK(RowsPerWave(kMultiprocessors, 8192) == 512);
  CHECK(RowsPerWave(kMultiprocessors, 4096) == 1024);
  CHECK(RowsPerWave(kMultiprocessors, 4097) == 896);
  CHECK(RowsPerWave(kMultiprocessors, 1) == 128 * 128);
  CHECK(RowsPerWave(kMultiprocessors, 1 << 20) == 128);
  CHECK(RowsPerWave(4, 8192) == 0);
  CHECK(RowsPerWave(0, 8192) == 0);
  CHECK(RowsPerWave(kMultiprocessors, 0) == 0);
}

TEST_CASE("only large results of 16-bit types on a GPU are overlapped") {
  using internal::WavesToOverlap;
  CHECK(WavesToOverlap(kMultiprocessors, DType::kBFloat16, 4096, 8192) == 8);
  CHECK(WavesToOverlap(kMultiprocessors, DType::kFloat16, 1024, 8192) == 2);
  CHECK(WavesToOverlap(kMultiprocessors, DType::kBFloat16, 1023, 8192) == 0);
  CHECK(WavesToOverlap(kMultiprocessors, DType::kBFloat16, 2560, 2048) == 0);
  CHECK(WavesToOverlap(kMultiprocessors, DType::kFloat32, 4096, 8192) == 0);
  CHECK(WavesToOverlap(0, DType::kBFloat16, 4096, 8192) == 0);
}

TEST_CASE("the parts of a product are whole waves but for the first, and the last is one") {
  using internal::OverlapParts;
  CHECK(OverlapParts(4096, 512, /*equal=*/false) == Sizes{2048, 1024, 512, 512});
  CHECK(OverlapParts(4000, 512, /*equal=*/false) == Sizes{1952, 1024, 512, 512});
  CHECK(OverlapParts(1024, 512, /*equal=*/false) == Sizes{512, 512});
  CHECK(OverlapParts(2100, 512, /*equal=*/true) == Sizes{564, 512, 512, 512});
  CHECK(OverlapParts(512, 512, /*equal=*/false) == Sizes{512});
  CHECK(OverlapParts(7, 512, /*equal=*/true) == Sizes{7});
  for (const bool equal : {false, true}) {
    for (std::int64_t rows = 1; rows < 5000; rows += 61) {
      const Sizes parts = OverlapParts(rows, 512, equal);
      INFO(rows << " rows");
      CHECK(std::reduce(parts.begin(), parts.end()) == rows);
      if (parts.size() == 1) CHECK(rows < 1024);
      if (parts.size() > 1) CHECK(parts.back() == 512);
      for (std::size_t i = 1; i < parts.size(); ++i) CHECK(parts[i] % 512 == 0);
    }
  }
}

TEST_CASE("the fastest way is chosen by the slowest rank, and alike on all") {
  const OverlapChoice ways[] = {
      {}, {.multiprocessors = 4}, {.multiprocessors = 4, .equal_parts = true}};
  // Milliseconds of each rank. Alone, rank 0 would take the second way, and rank 1 the first.
  constexpr int kTimes[2][3] = {{40, 1, 20}, {1, 60, 20}};
  auto ranks = Ranks::Create(2);
  REQUIRE_OK(ranks);
  REQUIRE_OK(ranks->Run([&](Worker& worker, Communicator& comm) -> absl::Status {
    internal::OverlapChoices choices;
    LOCKSTEP_RETURN_IF_ERROR(choices.Measure(
        worker, comm, /*waves=*/5, ways, [&](const OverlapChoice& way) -> absl::Status {
          const int which = way.multiprocessors == 0 ? 0 : (way.equal_parts ? 2 : 1);
          const auto begin = std::chrono::steady_clock::now();
          while (std::chrono::steady_clock::now() - begin <
                 std::chrono::milliseconds(kTimes[comm.rank()][which])) {
          }
          return absl::OkStatus();
        }));
    LOCKSTEP_RETURN_IF_ERROR(Expect(choices.Knows(4) && choices.Knows(7), "not known to 7"));
    LOCKSTEP_RETURN_IF_ERROR(Expect(!choices.Knows(3) && !choices.Knows(8), "known of others"));
    LOCKSTEP_RETURN_IF_ERROR(Expect(choices.Find(5).equal_parts, "another way"));
    LOCKSTEP_RETURN_IF_ERROR(Expect(choices.Find(5).sequence_us >= 40'000, "too short"));
    LOCKSTEP_RETURN_IF_ERROR(Expect(choices.Find(8).multiprocessors == 0, "not the sequence"));
    LOCKSTEP_ASSIGN_OR_RETURN(const int least, internal::LeastMultiprocessors(worker, comm));
    LOCKSTEP_RETURN_IF_ERROR(Expect(least == 0, "multiprocessors on the CPU"));
    // What a failed group measures is not known afterwards. All have measured the above by then.
    LOCKSTEP_RETURN_IF_ERROR(comm.Barrier());
    if (comm.rank() == 1) comm.Fail(absl::InternalError("no product")).IgnoreError();
    internal::OverlapChoices unlucky;
    const absl::Status measured = unlucky.Measure(
        worker, comm, 5, ways, [](const OverlapChoice&) { return absl::OkStatus(); });
    return Expect(!measured.ok() && !unlucky.Knows(5), "known after a failure");
  }));
}

TEST_CASE("a row-parallel layer overlaps on GPUs, and its bits are those of the sequence",
          "[gpu]") {
  if (Gpus().empty()) return;
  auto ranks = TwoRanks();
  REQUIRE_OK(ranks);
  const bool can_capture = ranks->barrier->transport() == "peer";
  REQUIRE_OK(ranks->Run([&](Worker& worker, Communicator& comm) -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(auto layer, RowParallelLinear::Create(worker, comm,
                                                                    {.in_features = 2 * kInner,
                                                                     .out_features = kFeatures,
                                                                     .bias = false,
                                                                     .dtype = DType::kBFloat16}));
    LOCKSTEP_ASSIGN_OR_RETURN(const Tensor x, Random(worker, {kTokens, kInner}, 7));
    LOCKSTEP_ASSIGN_OR_RETURN(const Tensor expected,
                              worker.Empty({kTokens, kFeatures}, DType::kBFloat16));
    LOCKSTEP_RETURN_IF_ERROR(
        MatMul(worker, x, layer.weight().value(), expected, {.batch_invariant = true}));
    LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(expected, expected));

    LOCKSTEP_RETURN_IF_ERROR(Expect(layer.overlap(kTokens).sequence_us == 0, "is known before"));
    for (int call = 0; call < 3; ++call) {
      LOCKSTEP_ASSIGN_OR_RETURN(const Tensor y, layer.Forward(x));
      LOCKSTEP_RETURN_IF_ERROR(ExpectSameBits(worker, y, expected));
    }
    const OverlapChoice choice = layer.overlap(kTokens);
    LOCKSTEP_RETURN_IF_ERROR(Expect(choice.sequence_us > 0, "is not known"));
    LOCKSTEP_RETURN_IF_ERROR(Expect(choice.us <= choice.sequence_us, "is slower"));
    LOCKSTEP_RETURN_IF_ERROR(Expect(layer.overlap(1024 - 1).sequence_us == 0, "is too small"));
    if (!can_capture) return absl::OkStatus();
    Tensor y;
    LOCKSTEP_ASSIGN_OR_RETURN(Graph graph, Graph::Capture(worker, [&]() -> absl::Status {
                                LOCKSTEP_ASSIGN_OR_RETURN(y, layer.Forward(x));
                                return absl::OkStatus();
                              }));
    LOCKSTEP_RETURN_IF_ERROR(graph.Launch());
    LOCKSTEP_RETURN_IF_ERROR(ExpectSameBits(worker, y, expected));
    return comm.Synchronize();
  }));
}

TEST_CASE("parts of a product, each summed beside the next, have the bits of the whole", "[gpu]") {
  if (Gpus().empty()) return;
  auto ranks = TwoRanks();
  REQUIRE_OK(ranks);
  REQUIRE_OK(ranks->Run([](Worker& worker, Communicator& comm) -> absl::Status {
    const int multiprocessors = NumMultiprocessors(worker.device());
    const auto seed = static_cast<std::uint64_t>(comm.rank());
    LOCKSTEP_ASSIGN_OR_RETURN(const Tensor x, Random(worker, {kTokens, kInner}, seed));
    LOCKSTEP_ASSIGN_OR_RETURN(const Tensor w, Random(worker, {kInner, kFeatures}, seed + 2));
    LOCKSTEP_ASSIGN_OR_RETURN(const Tensor y, worker.Empty({kTokens, kFeatures}, DType::kBFloat16));
    LOCKSTEP_ASSIGN_OR_RETURN(const Tensor expected,
                              worker.Empty({kTokens, kFeatures}, DType::kBFloat16));
    LOCKSTEP_RETURN_IF_ERROR(MatMul(worker, x, w, expected, {.batch_invariant = true}));
    LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(expected, expected));
    for (const std::int64_t part : {128, 512, 2048, 200}) {
      for (const int beside : {1, 2, 4, 8}) {
        LOCKSTEP_RETURN_IF_ERROR(Fill(worker, 0, y));
        std::vector<PendingCollective> sums;
        for (std::int64_t begin = 0; begin < kTokens; begin += part) {
          const std::int64_t rows = std::min(part, kTokens - begin);
          LOCKSTEP_ASSIGN_OR_RETURN(const Tensor x_part, x.Slice(/*axis=*/0, begin, rows));
          LOCKSTEP_ASSIGN_OR_RETURN(const Tensor y_part, y.Slice(/*axis=*/0, begin, rows));
          LOCKSTEP_RETURN_IF_ERROR(
              MatMul(worker, x_part, w, y_part,
                     {.max_multiprocessors = multiprocessors - beside, .batch_invariant = true}));
          LOCKSTEP_ASSIGN_OR_RETURN(auto sum, comm.AllReduceAsync(y_part, y_part, ReduceOp::kSum,
                                                                  {.max_multiprocessors = beside}));
          sums.push_back(std::move(sum));
        }
        LOCKSTEP_RETURN_IF_ERROR(sums.back().Wait());
        LOCKSTEP_RETURN_IF_ERROR(ExpectSameBits(worker, y, expected));
      }
    }
    return comm.Synchronize();
  }));
}

TEST_CASE("a column-parallel layer overlaps on GPUs, and its gradients are those of the sequence",
          "[gpu]") {
  if (Gpus().empty()) return;
  auto ranks = TwoRanks();
  REQUIRE_OK(ranks);
  REQUIRE_OK(ranks->Run([](Worker& worker, Communicator& comm) -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(auto layer,
                              ColumnParallelLinear::Create(worker, comm,
                                                           {.in_features = kFeatures,
                                                            .out_features = 2 * kInner,
                                                            .bias = false,
                                                            .dtype = DType::kBFloat16}));
    LOCKSTEP_ASSIGN_OR_RETURN(const Tensor x, Random(worker, {kTokens, kFeatures}, 7));
    LOCKSTEP_ASSIGN_OR_RETURN(const Tensor grad_out, Random(worker, {kTokens, kInner}, 8));
    LOCKSTEP_ASSIGN_OR_RETURN(const Tensor grad_x,
                              worker.Empty({kTokens, kFeatures}, DType::kBFloat16));
    LOCKSTEP_RETURN_IF_ERROR(
        MatMul(worker, grad_out, layer.weight().value(), grad_x, {.transpose_b = true}));
    LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(grad_x, grad_x));
    const Tensor& gradient = layer.weight().gradient();
    LOCKSTEP_ASSIGN_OR_RETURN(const Tensor expected,
                              worker.Empty(gradient.shape(), gradient.dtype()));
    // Measuring must not add to it.
    LOCKSTEP_RETURN_IF_ERROR(Fill(worker, 3, gradient));
    LOCKSTEP_RETURN_IF_ERROR(Fill(worker, 3, expected));
    for (int call = 0; call < 3; ++call) {
      LOCKSTEP_RETURN_IF_ERROR(
          MatMul(worker, x, grad_out, expected,
                 {.transpose_a = true, .accumulate = true, .batch_invariant = true}));
      LOCKSTEP_ASSIGN_OR_RETURN(const Tensor found, layer.Backward(x, grad_out));
      LOCKSTEP_RETURN_IF_ERROR(ExpectSameBits(worker, found, grad_x));
      LOCKSTEP_RETURN_IF_ERROR(ExpectSameBits(worker, gradient, expected));
    }
    const OverlapChoice choice = layer.overlap(kTokens);
    LOCKSTEP_RETURN_IF_ERROR(Expect(choice.sequence_us > 0, "is not known"));
    return Expect(choice.us <= choice.sequence_us, "is slower");
  }));
}

}  // namespace lockstep::testing
