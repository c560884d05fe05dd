#include "lockstep/collective/cuda/wait_report.h"

#include "lockstep/runtime/status.h"

namespace lockstep::internal::cuda {
namespace {

// From the lowest bit on: the awaited rank, then these.
constexpr int kRankBits = 8;
constexpr int kKindBits = 3;
constexpr int kTypeBits = 4;
constexpr int kOpBits = 3;
constexpr int kRootBits = 6;

// Puts fields above each other in a word, and takes them out in the same order.
class Fields {
 public:
  explicit Fields(std::uint64_t word = 0) : word_(word) {}
  void Put(std::uint64_t value, int bits) {
    LOCKSTEP_CHECK(value >> bits == 0);
    word_ |= value << at_;
    at_ += bits;
  }
  std::uint64_t Take(int bits) {
    const std::uint64_t value = word_ >> at_ & ((std::uint64_t{1} << bits) - 1);
    at_ += bits;
    return value;
  }
  int bits_left() const { return 64 - at_; }
  std::uint64_t word() const { return word_; }

 private:
  std::uint64_t word_;
  int at_ = 0;
};

}  // namespace

std::uint64_t CallOnDevice(const CollectiveCall& call, std::uint64_t round) {
  Fields fields;
  fields.Put(0, kRankBits);
  fields.Put(static_cast<std::uint64_t>(call.kind), kKindBits);
  fields.Put(static_cast<std::uint64_t>(call.dtype), kTypeBits);
  fields.Put(static_cast<std::uint64_t>(call.op), kOpBits);
  fields.Put(static_cast<std::uint64_t>(call.root), kRootBits);
  fields.Put(call.capturing ? 1 : 0, 1);
  const int left = fields.bits_left();
  fields.Put(round & ((std::uint64_t{1} << left) - 1), left);
  return fields.word();
}

WaitedCall ReadWaitReport(const WaitReport& report) {
  Fields fields(report.call);
  const int awaited_rank = static_cast<int>(fields.Take(kRankBits)) - 1;
  CollectiveCall call;
  call.kind = static_cast<CollectiveKind>(fields.Take(kKindBits));
  call.dtype = static_cast<DType>(fields.Take(kTypeBits));
  call.op = static_cast<ReduceOp>(fields.Take(kOpBits));
  call.root = static_cast<std::int32_t>(fields.Take(kRootBits));
  const bool in_graph = fields.Take(1) != 0;
  call.in_width = report.count;
  call.out_width = report.count;
  return {
      absl::StrCat(call.Describe(fields.Take(fields.bits_left())), in_graph ? ", in a graph" : ""),
      awaited_rank};
}

}  // namespace lockstep::internal::cuda
