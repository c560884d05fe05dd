// What every transport must do alike: one body over transports, numbers of ranks, operations,
// types, sizes and alignments.
#include <sys/mman.h>

#include <algorithm>
#include <numeric>

#include "lockstep/tests/collective/transports.h"

namespace lockstep {
namespace {

using testing::CreateRanks;
using testing::GetElement;
using testing::Guarded;
using testing::Ranks;
using testing::SetElement;
using testing::Transports;

constexpr std::int64_t kCounts[] = {0, 1, 2, 7, 63, 64, 65, 257, 4099};

// Runs `body` on every number of ranks of every transport.
void OnEveryGroup(const Ranks::Body& body) {
  for (const auto& transport : Transports()) {
    for (int world_size = transport.min_ranks(); world_size <= transport.max_ranks; ++world_size) {
      auto ranks = CreateRanks(world_size, transport);
      REQUIRE_OK(ranks);
      INFO(transport.name << ", " << world_size << " ranks");
      REQUIRE_OK(ranks->Run(body));
    }
  }
}

absl::Status Check(Guarded& out, std::int64_t index, double expected, const std::string& what) {
  if (out.Get(index) == expected) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat(what, ": element ", index, " is ", out.Get(index), ", expected ", expected));
}

// Small whole numbers, so that sums and products of nine are exact in every type. Products have
// factors 1 and 2 alone.
double Value(ReduceOp op, int rank, std::int64_t index) {
  const std::int64_t mixed = index * 7 + rank * 3;
  return static_cast<double>(op == ReduceOp::kProduct ? 1 + mixed % 2 : mixed % 11 - 4);
}

double Reduced(DType dtype, ReduceOp op, int world_size, std::int64_t index) {
  double result = Value(op, 0, index);
  for (int rank = 1; rank < world_size; ++rank) {
    const double value = Value(op, rank, index);
    if (op == ReduceOp::kProduct) {
      result *= value;
    } else if (op == ReduceOp::kMin) {
      result = std::min(result, value);
    } else if (op == ReduceOp::kMax) {
      result = std::max(result, value);
    } else {
      result += value;
    }
  }
  if (op != ReduceOp::kAverage) return result;
  if (dtype == DType::kFloat64) return result / world_size;
  // Divided in float32, then rounded to the type, or truncated.
  double rounded;
  alignas(8) unsigned char element[8];
  SetElement(dtype, element, 0,
             IsFloating(dtype) ? static_cast<float>(result) / static_cast<float>(world_size)
                               : result / world_size);
  rounded = GetElement(dtype, element, 0);
  return rounded;
}

absl::Status OneAllReduce(Worker& worker, Communicator& comm, DType dtype, ReduceOp op,
                          std::int64_t count, int skew, bool in_place) {
  Guarded in(worker, dtype, count, skew);
  Guarded separate(worker, dtype, count, skew + 1);
  Guarded& out = in_place ? in : separate;
  for (std::int64_t i = 0; i < count; ++i) in.Set(i, Value(op, comm.rank(), i));
  LOCKSTEP_RETURN_IF_ERROR(in.Upload());
  LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(in.tensor(), out.tensor(), op));
  // Nobody may still read the input when the call is done: a late reader would take in NaN.
  if (!in_place) LOCKSTEP_RETURN_IF_ERROR(in.Spoil());
  LOCKSTEP_RETURN_IF_ERROR(out.Download());
  const std::string what = absl::StrCat("all_reduce ", Name(dtype), " ", Name(op), " x ", count);
  for (std::int64_t i = 0; i < count; ++i) {
    LOCKSTEP_RETURN_IF_ERROR(Check(out, i, Reduced(dtype, op, comm.world_size(), i), what));
  }
  if (in.MarginsIntact() && separate.MarginsIntact()) return absl::OkStatus();
  return absl::InternalError(what + " wrote outside its output");
}

TEST_CASE(
    "all_reduce gives every rank the reduction of all, for every type, operation, count and "
    "alignment",
    "[gpu]") {
  OnEveryGroup([](Worker& worker, Communicator& comm) -> absl::Status {
    for (const DType dtype : kAllDTypes) {
      for (const ReduceOp op : kAllReduceOps) {
        for (const std::int64_t count : kCounts) {
          LOCKSTEP_RETURN_IF_ERROR(
              OneAllReduce(worker, comm, dtype, op, count, /*skew=*/0, /*in_place=*/false));
          LOCKSTEP_RETURN_IF_ERROR(OneAllReduce(worker, comm, dtype, op, count,
                                                /*skew=*/comm.rank() % 3, count % 2 == 0));
        }
      }
    }
    return absl::OkStatus();
  });
}

// The width of `rank`'s part when parts are uneven: 0, 1, 2, 3, 0, ...
std::int64_t PartWidth(int rank, std::int64_t scale) { return rank % 4 * scale; }
std::int64_t PartBegin(int rank, std::int64_t scale) {
  std::int64_t begin = 0;
  for (int r = 0; r < rank; ++r) begin += PartWidth(r, scale);
  return begin;
}

// Parts of a [rows, whole, inner] tensor along axis 1: element (row, column, k) of the whole has
// this flat index.
std::int64_t FlatIndex(std::int64_t row, std::int64_t column, std::int64_t k, std::int64_t whole,
                       std::int64_t inner) {
  return (row * whole + column) * inner + k;
}

struct Block {
  std::int64_t rows;
  std::int64_t inner;
  std::int64_t scale;
};
constexpr Block kBlocks[] = {{1, 1, 1},  {1, 1, 333}, {3, 1, 5}, {2, 7, 1},
                             {5, 3, 64}, {0, 1, 1},   {4, 0, 2}};

absl::Status OneReduceScatter(Worker& worker, Communicator& comm, DType dtype, ReduceOp op,
                              const Block& block) {
  const std::int64_t whole = PartBegin(comm.world_size(), block.scale);
  const std::int64_t width = PartWidth(comm.rank(), block.scale);
  const std::int64_t begin = PartBegin(comm.rank(), block.scale);
  Guarded in(worker, dtype, block.rows * whole * block.inner, 1);
  Guarded out(worker, dtype, block.rows * width * block.inner);
  for (std::int64_t i = 0; i < block.rows * whole * block.inner; ++i)
    in.Set(i, Value(op, comm.rank(), i));
  LOCKSTEP_RETURN_IF_ERROR(in.Upload());
  LOCKSTEP_RETURN_IF_ERROR(comm.ReduceScatter(in.tensor({block.rows, whole, block.inner}),
                                              out.tensor({block.rows, width, block.inner}), op, 1));
  LOCKSTEP_RETURN_IF_ERROR(in.Spoil());
  LOCKSTEP_RETURN_IF_ERROR(out.Download());
  for (std::int64_t i = 0; i < block.rows * width * block.inner; ++i) {
    const std::int64_t row = i / (width * block.inner);
    const std::int64_t column = i / block.inner % width;
    const std::int64_t flat = FlatIndex(row, begin + column, i % block.inner, whole, block.inner);
    LOCKSTEP_RETURN_IF_ERROR(
        Check(out, i, Reduced(dtype, op, comm.world_size(), flat), "reduce_scatter"));
  }
  return out.MarginsIntact() ? absl::OkStatus()
                             : absl::InternalError("reduce_scatter wrote outside its output");
}

TEST_CASE(
    "reduce_scatter gives every rank its part of the reduction, along any axis, even or uneven",
    "[gpu]") {
  OnEveryGroup([](Worker& worker, Communicator& comm) -> absl::Status {
    for (const DType dtype : kAllDTypes) {
      for (const ReduceOp op : kAllReduceOps) {
        for (const Block& block : kBlocks)
          LOCKSTEP_RETURN_IF_ERROR(OneReduceScatter(worker, comm, dtype, op, block));
      }
    }
    return absl::OkStatus();
  });
}

absl::Status OneAllGather(Worker& worker, Communicator& comm, DType dtype, const Block& block) {
  const std::int64_t whole = PartBegin(comm.world_size(), block.scale);
  const std::int64_t width = PartWidth(comm.rank(), block.scale);
  Guarded in(worker, dtype, block.rows * width * block.inner, 1);
  Guarded out(worker, dtype, block.rows * whole * block.inner);
  for (std::int64_t i = 0; i < block.rows * width * block.inner; ++i)
    in.Set(i, Value(ReduceOp::kSum, comm.rank(), i));
  LOCKSTEP_RETURN_IF_ERROR(in.Upload());
  LOCKSTEP_RETURN_IF_ERROR(out.Spoil());
  LOCKSTEP_RETURN_IF_ERROR(comm.AllGather(in.tensor({block.rows, width, block.inner}),
                                          out.tensor({block.rows, whole, block.inner}), -2));
  LOCKSTEP_RETURN_IF_ERROR(in.Spoil());
  LOCKSTEP_RETURN_IF_ERROR(out.Download());
  for (int rank = 0; rank < comm.world_size(); ++rank) {
    const std::int64_t other = PartWidth(rank, block.scale);
    for (std::int64_t i = 0; i < block.rows * other * block.inner; ++i) {
      const std::int64_t column = PartBegin(rank, block.scale) + i / block.inner % other;
      const std::int64_t flat =
          FlatIndex(i / (other * block.inner), column, i % block.inner, whole, block.inner);
      LOCKSTEP_RETURN_IF_ERROR(Check(out, flat, Value(ReduceOp::kSum, rank, i), "all_gather"));
    }
  }
  return out.MarginsIntact() ? absl::OkStatus()
                             : absl::InternalError("all_gather wrote outside its output");
}

TEST_CASE("all_gather joins the ranks' parts in rank order, along any axis, even or uneven",
          "[gpu]") {
  OnEveryGroup([](Worker& worker, Communicator& comm) -> absl::Status {
    for (const DType dtype : kAllDTypes) {
      for (const Block& block : kBlocks)
        LOCKSTEP_RETURN_IF_ERROR(OneAllGather(worker, comm, dtype, block));
    }
    return absl::OkStatus();
  });
}

TEST_CASE("a rank may scatter into, and gather from, its own part of the whole", "[gpu]") {
  OnEveryGroup([](Worker& worker, Communicator& comm) -> absl::Status {
    constexpr std::int64_t kPart = 37;
    const std::int64_t whole = kPart * comm.world_size();
    Guarded data(worker, DType::kFloat32, whole);
    for (std::int64_t i = 0; i < whole; ++i) data.Set(i, Value(ReduceOp::kSum, comm.rank(), i));
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor part, data.tensor().Slice(0, kPart * comm.rank(), kPart));
    LOCKSTEP_RETURN_IF_ERROR(data.Upload());
    LOCKSTEP_RETURN_IF_ERROR(comm.ReduceScatter(data.tensor(), part));
    LOCKSTEP_RETURN_IF_ERROR(comm.AllGather(part, data.tensor()));
    LOCKSTEP_RETURN_IF_ERROR(data.Download());
    for (std::int64_t i = 0; i < whole; ++i) {
      const double expected = Reduced(DType::kFloat32, ReduceOp::kSum, comm.world_size(), i);
      LOCKSTEP_RETURN_IF_ERROR(Check(data, i, expected, "reduce_scatter and all_gather in place"));
    }
    return absl::OkStatus();
  });
}

TEST_CASE("broadcast gives every rank the root's input, in place and out of place, from every root",
          "[gpu]") {
  OnEveryGroup([](Worker& worker, Communicator& comm) -> absl::Status {
    for (int root = 0; root < comm.world_size(); ++root) {
      for (const DType dtype : kAllDTypes) {
        for (const std::int64_t count : kCounts) {
          Guarded in(worker, dtype, count);
          Guarded out(worker, dtype, count, 1);
          const bool in_place = count % 2 == 1;
          for (std::int64_t i = 0; i < count; ++i) in.Set(i, Value(ReduceOp::kSum, comm.rank(), i));
          LOCKSTEP_RETURN_IF_ERROR(in.Upload());
          LOCKSTEP_RETURN_IF_ERROR(
              comm.Broadcast(in.tensor(), in_place ? in.tensor() : out.tensor(), root));
          if (!in_place) LOCKSTEP_RETURN_IF_ERROR(in.Spoil());
          LOCKSTEP_RETURN_IF_ERROR(in_place ? in.Download() : out.Download());
          for (std::int64_t i = 0; i < count; ++i) {
            LOCKSTEP_RETURN_IF_ERROR(
                Check(in_place ? in : out, i, Value(ReduceOp::kSum, root, i), "broadcast"));
          }
          if (!in.MarginsIntact() || !out.MarginsIntact()) {
            return absl::InternalError("broadcast wrote outside its output");
          }
        }
      }
    }
    return absl::OkStatus();
  });
}

absl::Status EqualAllToAll(Worker& worker, Communicator& comm, DType dtype, std::int64_t part,
                           bool in_place) {
  const std::int64_t count = part * comm.world_size();
  Guarded in(worker, dtype, count);
  Guarded separate(worker, dtype, count, 1);
  Guarded& out = in_place ? in : separate;
  for (std::int64_t i = 0; i < count; ++i) in.Set(i, Value(ReduceOp::kSum, comm.rank(), i));
  LOCKSTEP_RETURN_IF_ERROR(in.Upload());
  LOCKSTEP_RETURN_IF_ERROR(comm.AllToAll(in.tensor(), out.tensor()));
  if (!in_place) LOCKSTEP_RETURN_IF_ERROR(in.Spoil());
  LOCKSTEP_RETURN_IF_ERROR(out.Download());
  for (std::int64_t i = 0; i < count; ++i) {
    const int from = static_cast<int>(i / part);
    const std::int64_t sent = part * comm.rank() + i % part;
    LOCKSTEP_RETURN_IF_ERROR(Check(out, i, Value(ReduceOp::kSum, from, sent),
                                   in_place ? "all_to_all in place" : "all_to_all"));
  }
  return out.MarginsIntact() ? absl::OkStatus()
                             : absl::InternalError("all_to_all wrote outside its output");
}

TEST_CASE("all_to_all swaps equal parts, in place and out of place", "[gpu]") {
  OnEveryGroup([](Worker& worker, Communicator& comm) -> absl::Status {
    for (const DType dtype : kAllDTypes) {
      for (const std::int64_t part : {0, 1, 2, 5, 64, 501}) {
        LOCKSTEP_RETURN_IF_ERROR(EqualAllToAll(worker, comm, dtype, part, false));
        LOCKSTEP_RETURN_IF_ERROR(EqualAllToAll(worker, comm, dtype, part, true));
      }
    }
    return absl::OkStatus();
  });
}

// How many elements rank s sends to rank r when parts are uneven.
std::int64_t Sent(int s, int r) { return (s * 5 + r * 3) % 4; }

TEST_CASE("all_to_all moves uneven parts, empty ones among them", "[gpu]") {
  OnEveryGroup([](Worker& worker, Communicator& comm) -> absl::Status {
    std::vector<std::int64_t> send;
    std::vector<std::int64_t> receive;
    for (int other = 0; other < comm.world_size(); ++other) {
      send.push_back(Sent(comm.rank(), other));
      receive.push_back(Sent(other, comm.rank()));
    }
    Guarded in(worker, DType::kInt64, std::accumulate(send.begin(), send.end(), std::int64_t{0}));
    Guarded out(worker, DType::kInt64,
                std::accumulate(receive.begin(), receive.end(), std::int64_t{0}));
    for (std::int64_t i = 0; i < in.tensor().size(); ++i)
      in.Set(i, static_cast<double>(comm.rank() * 1000 + i));
    LOCKSTEP_RETURN_IF_ERROR(in.Upload());
    LOCKSTEP_RETURN_IF_ERROR(comm.AllToAll(in.tensor(), out.tensor(), send, receive));
    LOCKSTEP_RETURN_IF_ERROR(out.Download());
    std::int64_t at = 0;
    for (int from = 0; from < comm.world_size(); ++from) {
      std::int64_t offset = 0;
      for (int r = 0; r < comm.rank(); ++r) offset += Sent(from, r);
      for (std::int64_t i = 0; i < receive[from]; ++i, ++at) {
        LOCKSTEP_RETURN_IF_ERROR(
            Check(out, at, static_cast<double>(from * 1000 + offset + i), "uneven all_to_all"));
      }
    }
    return out.MarginsIntact() ? absl::OkStatus()
                               : absl::InternalError("all_to_all wrote outside its output");
  });
}

// The ranks below `end`, in the same order.
std::vector<int> Below(int end, std::vector<int> ranks) {
  std::erase_if(ranks, [end](int rank) { return rank >= end; });
  return ranks;
}

// `child` is a group of these ranks of `parent`, in this order, and sums over them alone. The
// parent works beside it.
absl::Status CheckSplit(Worker& worker, Communicator& parent, Communicator& child,
                        const std::vector<int>& ranks) {
  if (child.world_size() != static_cast<int>(ranks.size()) || ranks[child.rank()] != parent.rank())
    return absl::InternalError("a split group has other ranks, or another order, than asked for");
  Guarded sum(worker, DType::kInt64, 1);
  sum.Set(0, parent.rank());
  LOCKSTEP_RETURN_IF_ERROR(sum.Upload());
  LOCKSTEP_RETURN_IF_ERROR(child.AllReduce(sum.tensor(), sum.tensor()));
  LOCKSTEP_RETURN_IF_ERROR(sum.Download());
  LOCKSTEP_RETURN_IF_ERROR(
      Check(sum, 0, std::accumulate(ranks.begin(), ranks.end(), 0), "the sum of a split group"));
  return parent.Barrier();
}

TEST_CASE("split makes a group of the ranks of each color, in their order", "[gpu]") {
  OnEveryGroup([](Worker& worker, Communicator& comm) -> absl::Status {
    const bool even = comm.rank() % 2 == 0;
    const auto ranks = even ? std::vector{0, 2, 4, 6, 8} : std::vector{1, 3, 5, 7};
    for (int repeat = 0; repeat < 3; ++repeat) {
      LOCKSTEP_ASSIGN_OR_RETURN(auto child, comm.Split(/*color=*/even ? 0 : 1, /*key=*/0));
      LOCKSTEP_RETURN_IF_ERROR(CheckSplit(worker, comm, *child, Below(comm.world_size(), ranks)));
    }
    return absl::OkStatus();
  });
}

TEST_CASE("split numbers the ranks of a group by their keys", "[gpu]") {
  OnEveryGroup([](Worker& worker, Communicator& comm) -> absl::Status {
    const bool even = comm.rank() % 2 == 0;
    const auto ranks = even ? std::vector{8, 6, 4, 2, 0} : std::vector{7, 5, 3, 1};
    for (int repeat = 0; repeat < 3; ++repeat) {
      LOCKSTEP_ASSIGN_OR_RETURN(auto child, comm.Split(even ? 0 : 1, /*key=*/-comm.rank()));
      LOCKSTEP_RETURN_IF_ERROR(CheckSplit(worker, comm, *child, Below(comm.world_size(), ranks)));
    }
    return absl::OkStatus();
  });
}

TEST_CASE("split leaves out a rank without a color", "[gpu]") {
  OnEveryGroup([](Worker& worker, Communicator& comm) -> absl::Status {
    const int last = comm.world_size() - 1;
    for (int repeat = 0; repeat < 3; ++repeat) {
      LOCKSTEP_ASSIGN_OR_RETURN(auto child, comm.Split(comm.rank() == last ? -1 : 0, 0));
      if (comm.rank() == last) {
        if (child != nullptr) return absl::InternalError("the rank got a group all the same");
        LOCKSTEP_RETURN_IF_ERROR(comm.Barrier());
      } else {
        LOCKSTEP_RETURN_IF_ERROR(
            CheckSplit(worker, comm, *child, Below(last, {0, 1, 2, 3, 4, 5, 6, 7})));
      }
    }
    return absl::OkStatus();
  });
}

// ThreadSanitizer would shadow the 4 GiB four times over.
#ifndef __SANITIZE_THREAD__
TEST_CASE("F18: counts may be over 2^31", "[fault]") {
  // Memory that is only read stays unmapped, so this takes 4 GiB.
  constexpr std::int64_t kCount = (std::int64_t{1} << 31) + 3;
  constexpr std::size_t kBytes = static_cast<std::size_t>(kCount) * 2;
  auto ranks = Ranks::Create(2);
  REQUIRE_OK(ranks);
  REQUIRE_OK(ranks->Run([](Worker&, Communicator& comm) -> absl::Status {
    void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return absl::ResourceExhaustedError("no address space for the test");
    const Tensor tensor = Tensor::View(memory, {kCount}, DType::kFloat16);
    if (comm.rank() == 0) SetElement(DType::kFloat16, memory, kCount - 1, 7);
    absl::Status status = comm.Broadcast(tensor, tensor, 0);
    if (status.ok() && GetElement(DType::kFloat16, memory, kCount - 1) != 7)
      status = absl::InternalError("the last element is wrong");
    munmap(memory, kBytes);
    return status;
  }));
}
#endif

}  // namespace
}  // namespace lockstep
