// Small image sets as IDX files.
#ifndef LOCKSTEP_TOOLS_TESTS_IMAGE_SET_H_
#define LOCKSTEP_TOOLS_TESTS_IMAGE_SET_H_

#include <cstdint>
#include <fstream>
#include <random>
#include <string>

namespace lockstep::tools {

/// Big-endian, as IDX has it.
inline std::string Number(std::uint32_t value) {
  return {static_cast<char>(value >> 24), static_cast<char>(value >> 16),
          static_cast<char>(value >> 8), static_cast<char>(value)};
}

inline void WriteImages(const std::string& directory, const std::string& prefix,
                        std::uint32_t count, const std::string& pixels, const std::string& labels) {
  const std::string name = directory + "/" + prefix;
  std::ofstream(name + "-images-idx3-ubyte", std::ios::binary)
      << Number(0x803) + Number(count) + Number(2) + Number(10) + pixels;
  std::ofstream(name + "-labels-idx1-ubyte", std::ios::binary)
      << Number(0x801) + Number(count) + labels;
}

/// One that can be learnt: the brightest of ten columns is the label.
inline void WriteImageSet(const std::string& directory, const std::string& prefix,
                          std::uint32_t count, unsigned seed) {
  std::minstd_rand random(seed);
  std::string images;
  std::string labels;
  for (std::uint32_t image = 0; image < count; ++image) {
    const auto label = static_cast<unsigned>(random() % 10);
    labels += static_cast<char>(label);
    for (unsigned pixel = 0; pixel < 20; ++pixel)
      images += static_cast<char>(random() % 60 + (pixel % 10 == label ? 180 : 0));
  }
  WriteImages(directory, prefix, count, images, labels);
}

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_TESTS_IMAGE_SET_H_
