#include "lockstep/runtime/fork_mark.h"

#include <sys/mman.h>
#include <unistd.h>

#include <new>

namespace lockstep::internal {
namespace {

// The kernel rounds up to a page.
constexpr std::size_t kPageBytes = 1;

}  // namespace

ForkMark::ForkMark() : process_(getpid()) {
  void* const page =
      mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return;
  if (madvise(page, kPageBytes, MADV_WIPEONFORK) == 0) {
    page_ = new (page) std::atomic<bool>(true);
  } else {
    munmap(page, kPageBytes);
  }
}

ForkMark::~ForkMark() {
  if (page_ != nullptr) munmap(page_, kPageBytes);
}

bool ForkMark::IsOtherProcess() const { return getpid() != process_; }

}  // namespace lockstep::internal
