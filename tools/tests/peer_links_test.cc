// What `lockstep info` says of the way between two GPUs. How it is measured needs GPUs.
#include "lockstep/tools/lockstep/bench/limits/peer_links.h"

#include "lockstep/tests/catch.h"

namespace lockstep::tools {
namespace {

TEST_CASE("a proved link tells both figures, and one that is not tells why") {
  const PeerLink proved{.from = Device::Cuda(0),
                        .to = Device::Cuda(1),
                        .proof = absl::OkStatus(),
                        .copy_gb_per_s = 371.24,
                        .load_ns = 651.8};
  CHECK(ToString(proved) == "cuda:0 -> cuda:1: proved, copies 371.2 GB/s, loads 652 ns");
  const PeerLink refused{
      .from = Device::Cuda(3),
      .to = Device::Cuda(2),
      .proof = absl::UnavailableError("cuda:3 cannot reach the memory of cuda:2"),
      .copy_gb_per_s = 18};
  CHECK(ToString(refused) ==
        "cuda:3 -> cuda:2: not proved, copies 18.0 GB/s: cuda:3 cannot reach the memory of cuda:2");
}

TEST_CASE("there is no link without two GPUs, and then nothing is asked of them") {
  const auto links_of = [](std::vector<Device> devices) { return MeasurePeerLinks(devices); };
  for (const auto& links : {links_of({}), links_of({Device::Cpu(), Device::Cpu()}),
                            links_of({Device::Cuda(0), Device::Cuda(0), Device::Cpu()})}) {
    REQUIRE_OK(links);
    CHECK(links->empty());
  }
}

}  // namespace
}  // namespace lockstep::tools
