#include "lockstep/runtime/device.h"

#include "lockstep/runtime/worker.h"
#include "lockstep/tests/catch.h"

namespace lockstep {
namespace {

using testing::Says;

std::vector<std::string> Names(const std::string& text, int num_cuda_devices) {
  const auto devices = internal::ParseDevices(text, num_cuda_devices);
  REQUIRE_OK(devices);
  std::vector<std::string> names;
  for (const Device& device : *devices) names.push_back(device.ToString());
  return names;
}

TEST_CASE("lists of devices are read in order") {
  using List = std::vector<std::string>;
  CHECK(Names("cpu", 0) == List{"cpu"});
  CHECK(Names("auto", 0) == List{"cpu"});
  CHECK(Names("auto", 2) == List{"cuda:0", "cuda:1"});
  CHECK(Names("cuda", 3) == List{"cuda:0", "cuda:1", "cuda:2"});
  CHECK(Names("cuda:1", 2) == List{"cuda:1"});
  CHECK(Names("cuda:1-3", 4) == List{"cuda:1", "cuda:2", "cuda:3"});
  CHECK(Names("cuda:2,cpu,cuda:0-1", 8) == List{"cuda:2", "cpu", "cuda:0", "cuda:1"});
}

TEST_CASE("what is not a list of devices is refused") {
  for (const char* text : {"", ",", "cpu,", " cpu", "gpu", "cuda:", "cuda:-1", "cuda:1-", "cuda:-",
                           "cuda:3-1", "cuda:1-2-3", "cuda:a", "cuda:+1",
                           "cuda:99999999999999999999", "cpu:0", "CUDA:0", "cuda:0 "}) {
    INFO(text);
    CHECK(Says(internal::ParseDevices(text, 8).status(), "is not cpu, cuda, cuda:N"));
  }
}

TEST_CASE("devices that are not there are refused with those that are") {
  CHECK(Says(internal::ParseDevices("cuda", 0).status(),
             "\"cuda\" asked for, but this machine has no CUDA device"));
  CHECK(Says(internal::ParseDevices("cuda:1", 1).status(), "has cuda:0 alone"));
  CHECK(Says(internal::ParseDevices("cuda:0-4", 4).status(), "has cuda:0 to cuda:3"));
}

TEST_CASE("the CPU and devices that are not there have no multiprocessors") {
  CHECK(NumMultiprocessors(Device::Cpu()) == 0);
  CHECK(NumMultiprocessors(Device::Cuda(1000)) == 0);
}

TEST_CASE("a device named twice is refused") {
  CHECK(Says(internal::ParseDevices("cpu,cpu", 0).status(), "names cpu twice"));
  CHECK(Says(internal::ParseDevices("cuda:0-2,cuda:1", 4).status(),
             "names cuda:1 twice; for several ranks on one device give --ranks"));
}

TEST_CASE("ranks are dealt over the devices in order, each device's ranks beside each other") {
  const Device a = Device::Cuda(0);
  const Device b = Device::Cuda(1);
  const Device c = Device::Cpu();
  using List = std::vector<Device>;
  CHECK(internal::DealDevices({a, b}, 2) == List{a, b});
  CHECK(internal::DealDevices({a, b}, 4) == List{a, a, b, b});
  CHECK(internal::DealDevices({a, b}, 5) == List{a, a, a, b, b});
  CHECK(internal::DealDevices({a, b, c}, 4) == List{a, a, b, c});
  CHECK(internal::DealDevices({c, a, b}, 7) == List{c, c, c, a, a, b, b});
  CHECK(internal::DealDevices({a}, 3) == List{a, a, a});
}

TEST_CASE("a device that cannot be is refused where it would be used") {
  for (const Device device : {Device::Cuda(-1), Device::Cuda(1 << 30)}) {
    CHECK(Worker::Adopt(0, 1, device).status().code() == absl::StatusCode::kUnavailable);
    CHECK(MemoryPool::Create(Stream(device, nullptr)).status().code() ==
          absl::StatusCode::kUnavailable);
  }
  REQUIRE_OK(Stream().Synchronize());
}

}  // namespace
}  // namespace lockstep
