// The bytes of a file, decompressed while reading if it is gzip.
#ifndef LOCKSTEP_TOOLS_LOCKSTEP_TRAIN_UNPACKED_FILE_H_
#define LOCKSTEP_TOOLS_LOCKSTEP_TRAIN_UNPACKED_FILE_H_

#include <zlib.h>

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "lockstep/runtime/status.h"

namespace lockstep::tools {

/// The first two bytes decide whether a file is gzip (RFC 1952), not its name. It must then be one
/// or more members, each complete and with the right checksum, and nothing else: trailing bytes
/// that gzip(1) would ignore, such as the zeros of a tape archive, are an error here.
class UnpackedFile {
 public:
  /// kNotFound: there is none. kInvalidArgument: not a regular file, or not readable.
  static absl::StatusOr<UnpackedFile> Open(const std::string& path);

  /// Reads up to `length` bytes and returns how many: fewer only at the end of the file.
  /// kInvalidArgument: broken gzip, or it cannot be read.
  absl::StatusOr<std::size_t> Read(std::uint8_t* to, std::size_t length);

 private:
  struct CloseFile {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  struct EndInflate {
    void operator()(z_stream* stream) const {
      inflateEnd(stream);
      delete stream;
    }
  };

  UnpackedFile() = default;
  // Reads on once everything read has been used. At the end of the file nothing is available.
  absl::Status Refill();
  absl::Status BeginGzip();
  absl::Status Inflate(std::uint8_t*& to, std::size_t& left);
  absl::Status Broken(absl::string_view how) const;

  std::string path_;
  std::unique_ptr<std::FILE, CloseFile> file_;
  std::vector<std::uint8_t> buffer_;
  // The part of buffer_ that has not been used yet.
  std::uint8_t* next_ = nullptr;
  std::size_t available_ = 0;
  // Null for a plain file.
  std::unique_ptr<z_stream, EndInflate> inflate_;
  bool between_members_ = false;
};

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_TRAIN_UNPACKED_FILE_H_
