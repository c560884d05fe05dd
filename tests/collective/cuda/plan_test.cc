// What the transports on GPUs decide, on any machine: nothing here runs on one.
#include "lockstep/collective/cuda/plan.h"

#include <bit>
#include <limits>
#include <utility>
#include <vector>

#include "lockstep/collective/cuda/exchange_plan.h"

#include "lockstep/tests/catch.h"

namespace lockstep::internal::cuda {
namespace {

constexpr std::int64_t kCounts[] = {
    0, 1, 63, 64, 65, 1000, 4096, 100000, 1 << 20, 12345679, (1LL << 31) + 7};

std::vector<Device> Gpus(std::initializer_list<int> indices) {
  std::vector<Device> devices;
  for (const int index : indices) devices.push_back(Device::Cuda(index));
  return devices;
}

TEST_CASE("the transport is chosen by who reaches whom, who shares a GPU, and how many there are") {
  const absl::Status proved = absl::OkStatus();
  const absl::Status lost = absl::UnavailableError("from cuda:0 to cuda:1: copies lost 3 words");
  const auto nine = Gpus({0, 1, 2, 3, 4, 5, 6, 7, 8});
  const struct {
    std::vector<Device> devices;
    absl::Status proof;
    bool launches_block;
    TransportKind kind;
    std::string reason;
  } cases[] = {
      {Gpus({0}), proved, false, TransportKind::kPeer, "one rank"},
      {Gpus({0}), proved, true, TransportKind::kPeer, "one rank"},
      {Gpus({0, 1}), proved, false, TransportKind::kPeer, "proved to reach all others"},
      {Gpus({0, 1}), proved, true, TransportKind::kOrdered, "CUDA_LAUNCH_BLOCKING"},
      {Gpus({0, 0}), proved, false, TransportKind::kOrdered, "share a GPU"},
      {Gpus({0, 1, 0}), proved, false, TransportKind::kOrdered, "share a GPU"},
      {Gpus({0, 1, 2, 3, 4, 5, 6, 7}), proved, false, TransportKind::kPeer, "proved"},
      {nine, proved, false, TransportKind::kOrdered, "9 ranks are more than the 8"},
      {Gpus({0, 1}), lost, false, TransportKind::kStaged, "cuda:0 to cuda:1: copies lost 3 words"},
      {Gpus({0, 0, 1}), lost, true, TransportKind::kStaged, "copies lost"},
  };
  for (const auto& [devices, proof, launches_block, kind, reason] : cases) {
    const BestTransport best = ChooseBest(devices, proof, launches_block);
    INFO(devices.size() << " ranks: " << best.reason);
    CHECK(best.kind == kind);
    CHECK(best.reason.find(reason) != std::string::npos);
  }
}

TEST_CASE("a group's buffers take at most 56 MiB of a GPU by default, for two to eight ranks") {
  CHECK(PeerBufferBytes({}, 1) == 0);
  for (int ranks = 2; ranks <= kMaxPeers; ++ranks) {
    const AllReduceTuning fitted = FitInMemory({}, ranks);
    INFO(ranks << " ranks: " << PeerBufferBytes(fitted, ranks) << " bytes");
    CHECK(PeerBufferBytes(fitted, ranks) <= 56 << 20);
    // Smaller tiles for more ranks: as much is in flight between eight ranks as between two.
    CHECK(PeerBufferBytes(fitted, ranks) >= 45 << 20);
    CHECK(fitted.push_tile_bytes % 128 == 0);
  }
  // Two ranks have what was measured, and no tile is smaller than a line.
  CHECK(FitInMemory({}, 2).max_lines_bytes == AllReduceTuning{}.max_lines_bytes);
  CHECK(FitInMemory({}, 2).push_tile_bytes == AllReduceTuning{}.push_tile_bytes);
  CHECK(FitInMemory({.push_tile_bytes = 128}, 8).push_tile_bytes == 128);
}

TEST_CASE("the slices of all ranks make up the whole, and are equal to a line of memory") {
  for (const std::int64_t count : kCounts) {
    for (int ranks = 1; ranks <= kMaxRanks; ++ranks) {
      std::int64_t expected = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        const Range slice = SliceOf(count, rank, ranks);
        REQUIRE(slice.begin == expected);
        REQUIRE((slice.begin % 64 == 0 || slice.begin == count));
        REQUIRE(slice.end >= slice.begin);
        REQUIRE(slice.end - slice.begin <= RoundUp(DivideUp(count, ranks), 64));
        expected = slice.end;
      }
      REQUIRE(expected == count);
    }
  }
}

TEST_CASE("the pieces of a staged sum make up the whole, and other calls are not cut") {
  for (const std::int64_t count : kCounts) {
    CollectiveCall call{.kind = CollectiveKind::kAllReduce, .in_width = count, .out_width = count};
    const StagedPieces pieces(call);
    REQUIRE(pieces.count() >= 1);
    REQUIRE(pieces.count() <= StagedPieces::kMax);
    std::int64_t expected = 0;
    for (int piece = 0; piece < pieces.count(); ++piece) {
      REQUIRE(pieces[piece].begin == expected);
      REQUIRE((piece == 0 || pieces[piece].begin % 64 == 0));
      expected = pieces[piece].end;
    }
    REQUIRE(expected == count);
    call.kind = CollectiveKind::kAllGather;
    CHECK(StagedPieces(call).count() == 1);
    CHECK(StagedPieces(call)[0].end == count);
  }
  CHECK(StagedPieces({.kind = CollectiveKind::kAllReduce, .in_width = 16 << 20}).count() == 16);
  CHECK(StagedPieces({.kind = CollectiveKind::kAllReduce, .in_width = 1 << 20}).count() == 2);
}

TEST_CASE(
    "every pack of a sum by lines has a warp with room for it, and the buffer holds them all") {
  for (const LinesLayout layout : {LinesLayout{8 << 20, 1104, 128}, LinesLayout{2048, 4, 64},
                                   LinesLayout{0, 1, 32}, LinesLayout{1 << 30, 16, 512}}) {
    for (std::int64_t bytes = 1; bytes <= layout.max_bytes; bytes = bytes * 5 / 4 + 1) {
      const std::int64_t packs = DivideUp(bytes, LinesLayout::kPackBytes);
      const int blocks = layout.num_blocks(bytes);
      const std::int64_t warps = std::int64_t{blocks} * layout.warps_per_block();
      REQUIRE(blocks >= 1);
      REQUIRE(blocks <= layout.max_blocks);
      // Warp w has packs w, w + warps, and so on.
      REQUIRE(DivideUp(packs, warps) <= layout.packs_per_warp());
      REQUIRE(packs * LinesLayout::kLinesPerPack <= layout.max_lines());
    }
    // Two halves, for every source but the owner itself.
    CHECK(layout.buffer_bytes(3) == 2 * 2 * layout.max_lines() * LinesLayout::kLineBytes);
    // No warp has a slot that no launch uses.
    CHECK(layout.max_warps() ==
          std::max(1, layout.num_blocks(layout.max_bytes)) * layout.warps_per_block());
    CHECK(layout.num_blocks(layout.max_bytes) <= layout.max_blocks);
  }
}

TEST_CASE("a sum by lines takes no more blocks than there is room for, or none") {
  for (const LinesLayout layout : {LinesLayout{8 << 20, 1104, 128}, LinesLayout{2048, 4, 64},
                                   LinesLayout{1 << 20, 24, 96}, LinesLayout{1 << 30, 16, 512}}) {
    for (const int max_blocks : {1, 3, 8, 32, 2000}) {
      std::int64_t largest = 0;
      for (std::int64_t bytes = 1; bytes <= layout.max_bytes; bytes = bytes * 9 / 8 + 1) {
        INFO(bytes << " bytes, " << layout.max_blocks << " blocks, room for " << max_blocks);
        const LaunchShape shape = layout.ShapeFor(bytes, max_blocks);
        if (shape.num_blocks == 0) continue;
        largest = bytes;
        REQUIRE(shape.num_blocks <= max_blocks);
        REQUIRE(shape.num_threads <= LinesLayout::kMaxThreads);
        REQUIRE(shape.max_blocks == max_blocks);
        REQUIRE(shape.overlaps() == (2 * shape.num_blocks <= max_blocks));
        // Warp w has packs w, w + warps, and so on, and its own place in the buffer.
        const std::int64_t packs = DivideUp(bytes, LinesLayout::kPackBytes);
        const std::int64_t warps = std::int64_t{shape.num_blocks} * (shape.num_threads / 32);
        REQUIRE(DivideUp(packs, warps) <= layout.packs_per_warp());
        REQUIRE(std::min(packs, warps) <= layout.max_warps());
      }
      const std::int64_t in_one_turn =
          LinesLayout::kPackBytes * std::min<std::int64_t>(16 * max_blocks, layout.max_warps());
      CHECK(largest * 9 / 8 + 1 >= std::min(in_one_turn, layout.max_bytes));
    }
    // Where there is room, the shape is the layout's own.
    CHECK(layout.ShapeFor(layout.max_bytes, layout.max_blocks).num_threads == layout.num_threads);
  }
}

TEST_CASE("the tiles of all blocks cover every slot of a slice once, and fit their places") {
  for (const std::int64_t slots : {1LL, 7LL, 8LL, 1000LL, 65536LL, 1LL << 24, (1LL << 27) + 3}) {
    for (int ranks = 2; ranks <= kMaxPeers; ++ranks) {
      for (const auto& [blocks, tile_bytes] : {std::pair{132, 32 << 10}, {4, 4096}, {1, 128}}) {
        if (slots > (1 << 24) && tile_bytes < 4096) continue;
        const PushLayout layout = PushLayout::Of(slots, ranks, blocks, tile_bytes);
        INFO(slots << " slots, " << ranks << " ranks, " << blocks << " blocks of " << tile_bytes);
        REQUIRE(layout.slice_slots * ranks >= slots);
        REQUIRE(layout.slice_slots % 8 == 0);
        REQUIRE(layout.tile_slots % 8 == 0);
        REQUIRE(layout.tile_slots >= 8);
        REQUIRE(layout.tile_slots * kSlotBytes <= tile_bytes);
        // As the kernel counts them.
        const std::int64_t tiles = DivideUp(layout.slice_slots, layout.tile_slots);
        std::int64_t covered = 0;
        for (int block = 0; block < blocks; ++block) {
          const std::int64_t mine = tiles <= block ? 0 : DivideUp(tiles - block, blocks);
          for (std::int64_t i = 0; i < mine; ++i) {
            const std::int64_t begin = (block + i * blocks) * layout.tile_slots;
            REQUIRE(begin < layout.slice_slots);
            covered += std::min(layout.tile_slots, layout.slice_slots - begin);
          }
        }
        REQUIRE(covered == layout.slice_slots);
      }
    }
  }
  CHECK(PushLayout::BufferBytes(8, 132, 32 << 10) == 132LL * 8 * 7 * (32 << 10));
}

TEST_CASE(
    "fewer blocks than those the tiles' buffer is made for use more of it, and no more than it "
    "has") {
  CHECK(PushLayout::Depth(132, 132) == 8);
  CHECK(PushLayout::Depth(32, 132) == 16);
  for (const int push_blocks : {1, 4, 31, 32, 33, 132, 512}) {
    const std::int64_t tiles = PushLayout::BufferBytes(2, push_blocks, 128) / 128;
    for (int blocks = 1; blocks <= push_blocks; ++blocks) {
      const int depth = PushLayout::Depth(blocks, push_blocks);
      INFO(blocks << " of " << push_blocks << " blocks: " << depth << " tiles each");
      CHECK(std::has_single_bit(static_cast<unsigned>(depth)));
      CHECK(depth >= PushLayout::kMinDepth);
      CHECK(depth <= PushLayout::kMaxDepth);
      CHECK(depth * blocks <= tiles);
    }
  }
}

TEST_CASE("a kernel has the fewest blocks that a rank allows, and fewer beside other groups") {
  constexpr int kRoom = 32;
  constexpr int kRoomAside = 8;
  const auto limit = [](std::vector<CollectiveCall> calls) {
    std::vector<const CollectiveCall*> pointers;
    for (const CollectiveCall& call : calls) pointers.push_back(&call);
    const int blocks = MaxBlocks(pointers, kRoom, kRoomAside);
    return std::pair(blocks, StandInPairs(pointers, blocks));
  };
  constexpr int kUnlimited = std::numeric_limits<int>::max();
  CHECK(limit({{}, {}}) == std::pair(kUnlimited, false));
  CHECK(limit({{}, {.in_company = true}}) == std::pair(kRoom, false));
  CHECK(limit({{.aside = true}, {.in_company = true}}) == std::pair(kRoomAside, false));
  CHECK(limit({{.aside = true}, {}}) == std::pair(kUnlimited, false));
  CHECK(limit({{.max_multiprocessors = 4}, {}}) == std::pair(4, true));
  CHECK(limit({{.max_multiprocessors = 4}, {.max_multiprocessors = 2}}) == std::pair(2, true));
  CHECK(limit({{}, {.max_multiprocessors = 3}}) == std::pair(3, false));
  CHECK(limit({{.in_company = true, .max_multiprocessors = 4}, {}}) == std::pair(4, false));
  CHECK(limit({{.in_company = true}, {.max_multiprocessors = 100}}) == std::pair(kRoom, false));
}

// The calls of all ranks, on int64 tensors of their own: each rank's part is [outer, width(rank)].
struct Exchange {
  Exchange(CollectiveKind kind, int world_size, std::int64_t outer, bool even) {
    const auto ranks = static_cast<std::size_t>(world_size);
    details.resize(ranks);
    for (std::size_t r = 0; r < ranks; ++r) {
      widths.push_back(even ? 6 : static_cast<std::int64_t>(r * 5 % 4));
    }
    std::int64_t whole = 0;
    for (const std::int64_t width : widths) whole += width;
    for (std::size_t r = 0; r < ranks; ++r) {
      CollectiveCall call{
          .kind = kind, .dtype = DType::kInt64, .root = static_cast<std::int16_t>(world_size - 1)};
      call.outer = outer;
      const bool scatters = kind == CollectiveKind::kReduceScatter;
      const bool gathers = kind == CollectiveKind::kAllGather;
      // Rank r sends widths[s] elements to each s in an uneven all-to-all.
      call.in_width = gathers ? widths[r] : whole;
      call.out_width = scatters                            ? widths[r]
                       : kind == CollectiveKind::kAllToAll ? widths[r] * world_size
                                                           : whole;
      received.push_back(std::vector<std::int64_t>(ranks, widths[r]));
      in.emplace_back(static_cast<std::size_t>(call.in_count()));
      for (std::size_t i = 0; i < in[r].size(); ++i)
        in[r][i] = static_cast<std::int64_t>(1000 * r + i);
      calls.push_back(call);
    }
    for (std::size_t r = 0; r < ranks; ++r) {
      calls[r].in = in[r].data();
      if (kind == CollectiveKind::kAllToAll) {
        details[r] = {.send_counts = widths.data(), .receive_counts = received[r].data()};
        calls[r].details = &details[r];
      }
      pointers.push_back(&calls[r]);
    }
  }
  // Fresh outputs, and each rank's round over them.
  std::vector<std::vector<std::int64_t>> Outputs() {
    std::vector<std::vector<std::int64_t>> outputs;
    for (CollectiveCall& call : calls) {
      outputs.emplace_back(static_cast<std::size_t>(call.out_count()), -1);
      call.out = outputs.back().data();
    }
    return outputs;
  }
  Round round(int rank) const {
    static constexpr auto kNever = [] { return false; };
    return {.rank = rank, .number = 1, .calls = pointers, .failed = kNever};
  }

  std::vector<std::int64_t> widths;
  std::vector<std::vector<std::int64_t>> received;
  std::vector<std::vector<std::int64_t>> in;
  std::vector<CallDetails> details;
  std::vector<CollectiveCall> calls;
  std::vector<const CollectiveCall*> pointers;
};

std::int64_t& At(const Part& part, std::int64_t element) {
  return static_cast<std::int64_t*>(
      part.data)[element / part.width * part.pitch + element % part.width];
}

TEST_CASE("what every rank plans to send and to receive fits together, and is what the cpu moves") {
  for (const CollectiveKind kind : {CollectiveKind::kReduceScatter, CollectiveKind::kAllGather,
                                    CollectiveKind::kBroadcast, CollectiveKind::kAllToAll}) {
    const bool has_rows =
        kind == CollectiveKind::kReduceScatter || kind == CollectiveKind::kAllGather;
    for (int ranks = 2; ranks <= kMaxPeers; ++ranks) {
      for (const std::int64_t outer : {1, 3}) {
        for (const bool even : {true, false}) {
          INFO(Name(kind) << ", " << ranks << " ranks, outer " << outer << ", even " << even);
          Exchange exchange(kind, ranks, has_rows ? outer : 1, even);
          const auto expected = exchange.Outputs();
          const auto cpu = MakeCpuTransport();
          for (int rank = 0; rank < ranks; ++rank) REQUIRE_OK(cpu->Move(exchange.round(rank)));
          auto moved = exchange.Outputs();
          std::vector<ExchangePlan> plans;
          for (int rank = 0; rank < ranks; ++rank) {
            plans.push_back(PlanExchange(exchange.round(rank)));
          }
          std::int64_t largest = 0;
          for (int to = 0; to < ranks; ++to) {
            const ExchangePlan& receiver = plans[to];
            CHECK(receiver.largest == plans[0].largest);
            CHECK(receiver.reduces == (kind == CollectiveKind::kReduceScatter));
            for (int from = 0; from < ranks; ++from) {
              const Part& sent = plans[from].send[to];
              const Part& place = receiver.receive[from];
              REQUIRE(sent.count == place.count);
              largest = std::max(largest, sent.count);
              for (std::int64_t i = 0; i < sent.count; ++i) {
                std::int64_t& element = At(place, i);
                element = At(sent, i) + (receiver.reduces && from > 0 ? element : 0);
              }
            }
          }
          CHECK(largest == plans[0].largest);
          CHECK(moved == expected);
        }
      }
    }
  }
}

}  // namespace
}  // namespace lockstep::internal::cuda
