// Reads image sets in the IDX format (LeCun's MNIST page), gzipped or plain. Nothing in a file is
// trusted.
#ifndef LOCKSTEP_TOOLS_LOCKSTEP_TRAIN_IDX_H_
#define LOCKSTEP_TOOLS_LOCKSTEP_TRAIN_IDX_H_

#include <cstdint>
#include <string>
#include <vector>

#include "lockstep/runtime/status.h"

namespace lockstep::tools {

/// An IDX file of unsigned bytes: its extents, and as many bytes as their product.
struct IdxArray {
  std::vector<std::uint32_t> extents;
  std::vector<std::uint8_t> bytes;
};

/// Reads one file. kNotFound: there is none. kInvalidArgument: not a regular file, not IDX of
/// unsigned bytes with 1 to 4 axes, more than 1 GiB, shorter or longer than its header says, or
/// broken gzip (UnpackedFile); the message names the file.
absl::StatusOr<IdxArray> ReadIdx(const std::string& path);

/// Images as rows of numbers, and their labels.
struct Dataset {
  std::int64_t num_images = 0;
  std::int64_t num_pixels = 0;
  std::vector<float> images;  // [num_images, num_pixels], mean 0 and deviation 1 over Fashion-MNIST
  std::vector<std::int32_t> labels;  // [num_images], from 0 to 9
};

/// Where Debian's package dataset-fashion-mnist puts its files.
extern const char* const kFashionMnistDirectory;

/// Reads `<prefix>-images-idx3-ubyte` and `<prefix>-labels-idx1-ubyte`, with or without .gz, from a
/// directory; prefix is "train" or "t10k". Errors as ReadIdx, and kInvalidArgument when images and
/// labels do not match.
absl::StatusOr<Dataset> ReadDataset(const std::string& directory, const std::string& prefix);

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_TRAIN_IDX_H_
