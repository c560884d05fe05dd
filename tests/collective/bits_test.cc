// Every transport gives the bits of the CPU's arithmetic, for every type, operation, number of
// ranks and way of moving.
#include <algorithm>
#include <atomic>
#include <limits>
#include <random>
#include <thread>

#include "lockstep/collective/reduce_tree.h"
#include "lockstep/tests/collective/transports.h"

namespace lockstep {
namespace {

using testing::CreateRanks;
using testing::Guarded;
using testing::Transports;

double LargestOf(DType dtype) {
  return dtype == DType::kFloat64    ? std::numeric_limits<double>::max()
         : dtype == DType::kFloat32  ? static_cast<double>(std::numeric_limits<float>::max())
         : dtype == DType::kBFloat16 ? 0x1.FEp127
                                     : 65504;
}

// A rank's input: any bits at all (NaN, infinity and subnormals among them), numbers that cancel
// each other, and the largest, whose sum overflows though their average does not.
void FillRandom(Guarded& data, DType dtype, std::int64_t count, unsigned seed) {
  std::mt19937_64 random(seed);
  auto* const bytes = static_cast<unsigned char*>(data.host());
  for (std::size_t i = 0; i < data.size_bytes(); ++i) {
    bytes[i] = static_cast<unsigned char>(random());
  }
  if (!IsFloating(dtype)) return;
  constexpr double kCancelling[] = {3e4, 1, -3e4, 1, 0, -0.0, 1e-7, -3};
  for (std::int64_t i = 0; i < count; ++i) {
    // One in four elements is large on all ranks.
    if (i % 4 == 1) {
      data.Set(i, random() % 4 == 0 ? -LargestOf(dtype) : LargestOf(dtype));
    } else if (random() % 2 == 0) {
      data.Set(i, kCancelling[random() % 8]);
    }
  }
}

struct Sum {
  DType dtype;
  ReduceOp op;
  std::int64_t count;
  int skew;
  bool in_place;
};

// The inputs of all ranks, drawn again on each, reduced by the CPU's kernels.
std::vector<unsigned char> Expected(const Sum& sum, int world_size) {
  std::vector<Guarded> inputs;
  std::vector<const void*> pointers;
  for (int rank = 0; rank < world_size; ++rank) {
    inputs.emplace_back(sum.dtype, sum.count);
    FillRandom(inputs.back(), sum.dtype, sum.count, static_cast<unsigned>(rank));
  }
  for (Guarded& input : inputs) pointers.push_back(input.host());
  std::vector<unsigned char> result(static_cast<std::size_t>(sum.count) * SizeOf(sum.dtype) + 64);
  void* const output = result.data();
  internal::ReduceTree(sum.dtype, sum.op, pointers, {&output, 1}, sum.count, /*streaming=*/false);
  return result;
}

absl::Status OneSum(Worker& worker, Communicator& comm, const Sum& sum) {
  Guarded in(worker, sum.dtype, sum.count, sum.skew);
  Guarded separate(worker, sum.dtype, sum.count);
  Guarded& out = sum.in_place ? in : separate;
  FillRandom(in, sum.dtype, sum.count, static_cast<unsigned>(comm.rank()));
  LOCKSTEP_RETURN_IF_ERROR(in.Upload());
  LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(in.tensor(), out.tensor(), sum.op));
  LOCKSTEP_RETURN_IF_ERROR(out.Download());
  const std::vector<unsigned char> expected = Expected(sum, comm.world_size());
  if (std::memcmp(out.host(), expected.data(), out.size_bytes()) == 0) return absl::OkStatus();
  std::size_t at = 0;
  while (static_cast<unsigned char*>(out.host())[at] == expected[at]) ++at;
  const auto index = static_cast<std::int64_t>(at / SizeOf(sum.dtype));
  return absl::InternalError(absl::StrCat(
      "all_reduce of ", sum.count, " ", Name(sum.dtype), ", ", Name(sum.op), ", skew ", sum.skew,
      sum.in_place ? ", in place" : "", ": element ", index, " is ", out.Get(index), ", expected ",
      testing::GetElement(sum.dtype, expected.data(), index)));
}

TEST_CASE("a group of one gives back its input bit for bit, NaNs too", "[gpu]") {
  for (const auto& transport : Transports()) {
    if (transport.min_ranks() > 1) continue;
    auto ranks = CreateRanks(1, transport);
    REQUIRE_OK(ranks);
    INFO(transport.name);
    REQUIRE_OK(ranks->Run([](Worker& worker, Communicator& comm) -> absl::Status {
      for (const ReduceOp op : kAllReduceOps) {
        for (const std::int64_t count : {3, 1'000'003}) {
          Guarded in(worker, DType::kFloat32, count);
          Guarded out(worker, DType::kFloat32, count);
          auto* const bits = static_cast<std::uint32_t*>(in.host());
          for (std::int64_t i = 0; i < count; ++i) bits[i] = 0xFFC00001u + static_cast<unsigned>(i);
          LOCKSTEP_RETURN_IF_ERROR(in.Upload());
          LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(in.tensor(), in.tensor(), op));
          LOCKSTEP_RETURN_IF_ERROR(comm.ReduceScatter(in.tensor(), out.tensor(), op));
          LOCKSTEP_RETURN_IF_ERROR(out.Download());
          if (std::memcmp(out.host(), in.host(), in.size_bytes()) != 0)
            return absl::InternalError(absl::StrCat(Name(op), " of ", count, " changed a bit"));
        }
      }
      return absl::OkStatus();
    }));
  }
}

TEST_CASE("every transport gives the bits of the CPU's reduction tree", "[gpu]") {
  for (const auto& transport : Transports()) {
    // The CPU's own arithmetic has more tests, and sanitizers are slow.
    const bool is_cpu = transport.devices[0].is_cpu();
    const int step = is_cpu ? 3 : 1;
    const std::vector<std::int64_t> counts =
        is_cpu ? std::vector<std::int64_t>{37, 1025} : std::vector<std::int64_t>{37, 1025, 9001};
    for (int world_size = std::max(2, transport.min_ranks()); world_size <= transport.max_ranks;
         world_size += step) {
      auto ranks = CreateRanks(world_size, transport);
      REQUIRE_OK(ranks);
      INFO(transport.name << ", " << world_size << " ranks");
      REQUIRE_OK(ranks->Run([&](Worker& worker, Communicator& comm) -> absl::Status {
        for (const DType dtype : kAllDTypes) {
          for (const ReduceOp op : kAllReduceOps) {
            for (const std::int64_t count : counts) {
              LOCKSTEP_RETURN_IF_ERROR(OneSum(worker, comm, {dtype, op, count, 0, false}));
              LOCKSTEP_RETURN_IF_ERROR(OneSum(worker, comm, {dtype, op, count, 1, true}));
              LOCKSTEP_RETURN_IF_ERROR(OneSum(worker, comm, {dtype, op, count, 0, true}));
            }
          }
        }
        return absl::OkStatus();
      }));
    }
  }
}

// The buffers between peers are used in turn: each round finds what the one before left.
TEST_CASE("64 queued sums of changing values, large and small in turn, are all right", "[gpu]") {
  for (const auto& transport : Transports()) {
    const int world_size = std::max(2, transport.min_ranks());
    auto ranks = CreateRanks(world_size, transport);
    REQUIRE_OK(ranks);
    INFO(transport.name);
    REQUIRE_OK(ranks->Run([](Worker& worker, Communicator& comm) -> absl::Status {
      constexpr int kRounds = 64;
      std::vector<Guarded> data;
      for (int round = 0; round < kRounds; ++round) {
        const std::int64_t count = round % 3 == 0 ? 100000 : 1 + round * 7;
        data.emplace_back(worker, DType::kFloat32, count);
        for (std::int64_t i = 0; i < count; ++i) {
          data.back().Set(i, static_cast<double>(round + (i + comm.rank()) % 16));
        }
        LOCKSTEP_RETURN_IF_ERROR(data.back().Upload());
      }
      for (Guarded& sum : data)
        LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(sum.tensor(), sum.tensor()));
      for (int round = 0; round < kRounds; ++round) {
        Guarded& sum = data[round];
        LOCKSTEP_RETURN_IF_ERROR(sum.Download());
        for (std::int64_t i = 0; i < sum.tensor().size(); ++i) {
          double expected = 0;
          for (int rank = 0; rank < comm.world_size(); ++rank) {
            expected += static_cast<double>(round + (i + rank) % 16);
          }
          if (sum.Get(i) != expected) {
            return absl::InternalError(absl::StrCat("round ", round, ", element ", i, " is ",
                                                    sum.Get(i), ", expected ", expected));
          }
        }
      }
      return absl::OkStatus();
    }));
  }
}

// F30. On a GPU, asking the driver for memory may wait for a device, and so for a peer.
TEST_CASE("F30: a host thread that allocates and frees does not stop the collectives",
          "[gpu][fault]") {
  for (auto& transport : Transports()) {
    // Where it is asked for on a shared GPU, nothing else may run there.
    if (transport.options.transport == TransportKind::kPeer) continue;
    transport.options.timeout = absl::Seconds(20);
    const int world_size = std::max(2, transport.min_ranks());
    auto ranks = CreateRanks(world_size, transport);
    REQUIRE_OK(ranks);
    INFO(transport.name);
    std::atomic<bool> stop{false};
    std::atomic<int> rounds{0};
    absl::Status allocating;
    std::thread host([&] {
      for (int round = 0; allocating.ok() && (!stop || round < 3); ++round) {
        // A new worker has a pool of its own, which asks the device for this and gives it back.
        auto worker = Worker::Adopt(0, 1, transport.devices[0]);
        allocating =
            worker.ok() ? worker->Empty({1 << 20}, DType::kFloat32).status() : worker.status();
        rounds = round + 1;
      }
    });
    const absl::Status status = ranks->Run([](Worker& worker, Communicator& comm) -> absl::Status {
      Guarded data(worker, DType::kFloat32, 50000);
      for (std::int64_t i = 0; i < 50000; ++i) data.Set(i, 0);
      LOCKSTEP_RETURN_IF_ERROR(data.Upload());
      const int sums = worker.device().is_cpu() ? 200 : 2000;
      for (int sum = 0; sum < sums; ++sum)
        LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(data.tensor(), data.tensor()));
      return comm.Synchronize();
    });
    stop = true;
    host.join();
    REQUIRE_OK(status);
    REQUIRE_OK(allocating);
    CHECK(rounds >= 3);
  }
}

}  // namespace
}  // namespace lockstep
