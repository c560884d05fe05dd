// What a layer owes the other ranks of its group: they hear of an error for which they would wait,
// and they are told when they do not all make the same thing.
#ifndef LOCKSTEP_LAYERS_PEERS_H_
#define LOCKSTEP_LAYERS_PEERS_H_

#include <initializer_list>
#include <string>

#include "absl/strings/string_view.h"
#include "lockstep/collective/communicator.h"
#include "lockstep/runtime/worker.h"

namespace lockstep::internal {

inline const absl::Status& StatusOf(const absl::Status& status) { return status; }
template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& result) {
  return result.status();
}

/// Passes on what `step` returns, a Status or a StatusOr. It is what this rank does by itself, no
/// collective: an error fails the group (see Communicator::Fail).
template <typename Step>
auto Alone(Communicator& comm, Step&& step) -> decltype(step()) {
  auto result = OutOfMemoryAsStatus(step);
  comm.Fail(StatusOf(result)).IgnoreError();
  return result;
}

/// One of the things that are the same on every rank: {"seed", "7"}.
struct SharedOption {
  absl::string_view name;
  std::string value;
};

/// A collective: OK if every rank makes `what` with the same options. kFailedPrecondition: the same
/// text on every rank, naming what differs and which ranks gave which values; the group stays as it
/// is. The options' names and order follow from `what`. A group of one needs nobody.
absl::Status CompareAcrossRanks(Worker& worker, Communicator& comm, absl::string_view what,
                                std::initializer_list<SharedOption> options);

}  // namespace lockstep::internal

#endif  // LOCKSTEP_LAYERS_PEERS_H_
