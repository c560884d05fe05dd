// Calls that must fail: what every rank is told, that nothing was moved, and that the group heals.
#ifndef LOCKSTEP_TESTS_COLLECTIVE_PROVOKE_H_
#define LOCKSTEP_TESTS_COLLECTIVE_PROVOKE_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

#include "lockstep/tests/catch.h"
#include "lockstep/tests/collective/guarded.h"
#include "lockstep/tests/ranks.h"

namespace lockstep::testing {

using Statuses = std::vector<absl::Status>;

inline constexpr int kRanks = 3;

/// All ranks' statuses, after checking that no output byte has changed.
inline Statuses Provoke(
    const std::function<absl::Status(Communicator&, Guarded& in, Guarded& out)>& body) {
  auto ranks = Ranks::Create(kRanks);
  REQUIRE_OK(ranks);
  std::vector<Guarded> ins(kRanks, Guarded(DType::kFloat32, 12));
  std::vector<Guarded> outs = ins;
  for (auto& out : outs) REQUIRE_OK(out.Spoil());
  Statuses statuses = ranks->RunEach([&](Worker& worker, Communicator& comm) {
    const auto rank = static_cast<std::size_t>(worker.rank());
    return body(comm, ins[rank], outs[rank]);
  });
  for (auto& out : outs) {
    const auto* bytes = static_cast<const unsigned char*>(out.data());
    CHECK(std::all_of(bytes, bytes + 48, [](unsigned char byte) { return byte == 0xFF; }));
  }
  // The group can be healed, and then the next round is exact.
  REQUIRE_OK(ranks->barrier->Reset());
  REQUIRE_OK(ranks->Run([](Worker&, Communicator& comm) -> absl::Status {
    std::int64_t one = 1;
    const Tensor tensor = Tensor::View(&one, {1}, DType::kInt64);
    LOCKSTEP_RETURN_IF_ERROR(comm.AllReduce(tensor, tensor));
    return one == kRanks ? absl::OkStatus() : absl::InternalError("inexact after Reset");
  }));
  return statuses;
}

/// The same text on every rank, with all these parts.
inline void CheckMismatch(const Statuses& statuses, absl::StatusCode code,
                          std::initializer_list<const char*> parts) {
  for (const absl::Status& status : statuses) {
    INFO(status.ToString());
    CHECK(status == statuses[0]);
    CHECK(status.code() == code);
    for (const char* part : parts) CHECK(Says(status, part));
  }
}

inline Tensor First(Guarded& data, std::int64_t count, DType dtype = DType::kFloat32) {
  return Tensor::View(data.data(), {count}, dtype);
}

/// Rank 1's call is refused with `part`; the others hear of it.
inline void CheckRefused(const Statuses& statuses, const char* part) {
  INFO(statuses[1].ToString());
  CHECK(statuses[1].code() == absl::StatusCode::kInvalidArgument);
  CHECK(Says(statuses[1], part));
  for (const int rank : {0, 2}) {
    const absl::Status& status = statuses[rank];
    INFO(status.ToString());
    CHECK(status.code() == absl::StatusCode::kAborted);
    CHECK(Says(status, "rank 1 refused its call"));
    CHECK(Says(status, part));
  }
}

}  // namespace lockstep::testing

#endif  // LOCKSTEP_TESTS_COLLECTIVE_PROVOKE_H_
