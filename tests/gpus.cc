// Catch2 2 declares listeners only on request.
#define CATCH_CONFIG_EXTERNAL_INTERFACES
#include "lockstep/tests/gpus.h"

#include "lockstep/tests/catch.h"

namespace lockstep::testing {
namespace {

// Of the test case that runs: "[gpu][fault]".
std::string current_tags;

#if __has_include(<catch2/catch_all.hpp>)
using Listener = Catch::EventListenerBase;
#else
using Listener = Catch::TestEventListenerBase;
#endif

struct TagListener : Listener {
  using Listener::Listener;
  void testCaseStarting(const Catch::TestCaseInfo& info) override {
    current_tags = info.tagsAsString();
  }
};
CATCH_REGISTER_LISTENER(TagListener)

}  // namespace

void RequireGpuTag() {
  if (current_tags.find("[gpu]") == std::string::npos)
    FAIL("a test case that runs on GPUs where there are any must have the tag [gpu]");
}

std::vector<Device> Gpus() {
  RequireGpuTag();
  std::vector<Device> gpus;
  for (int index = 0; index < CudaDeviceCount(); ++index) gpus.push_back(Device::Cuda(index));
  return gpus;
}

}  // namespace lockstep::testing
