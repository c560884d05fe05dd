#include "lockstep/collective/transport_kind.h"

#include <algorithm>
#include <iterator>

namespace lockstep {
namespace {

constexpr absl::string_view kNames[] = {"auto", "cpu", "peer", "staged", "ordered"};

}  // namespace

absl::string_view Name(TransportKind kind) {
  return kNames[std::min(static_cast<std::size_t>(kind), std::size(kNames) - 1)];
}

absl::StatusOr<TransportKind> ParseTransportKind(absl::string_view name) {
  const auto* const found = std::find(std::begin(kNames), std::end(kNames), name);
  if (found != std::end(kNames)) return static_cast<TransportKind>(found - kNames);
  return absl::InvalidArgumentError(
      absl::StrCat("transport \"", name, "\": there are auto, cpu, peer, staged and ordered"));
}

}  // namespace lockstep
