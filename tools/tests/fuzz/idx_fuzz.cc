// The reader of IDX files, plain and gzipped.
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>

#include "lockstep/tools/lockstep/train/idx.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  // A file without a place on a disk.
  static const int file = memfd_create("idx", 0);
  static const std::string path = absl::StrCat("/proc/self/fd/", file);
  LOCKSTEP_CHECK(ftruncate(file, 0) == 0);
  LOCKSTEP_CHECK(pwrite(file, data, size, 0) == static_cast<ssize_t>(size));
  const auto array = lockstep::tools::ReadIdx(path);
  if (!array.ok()) {
    LOCKSTEP_CHECK(absl::IsInvalidArgument(array.status()));
    return 0;
  }
  LOCKSTEP_CHECK(!array->extents.empty() && array->extents.size() <= 4);
  std::uint64_t product = 1;
  for (const std::uint32_t extent : array->extents) product *= extent;
  LOCKSTEP_CHECK(product == array->bytes.size());
  return 0;
}
