// The bytes of a file, unpacked on the way where it is gzip.
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

/// Its first two bytes tell whether a file is gzip (RFC 1952), not its name. Then it is one member
/// or more, each whole and right by its checksum, and nothing else: what gzip(1) would pass over
/// behind the last one, the zeros of a tape archiver too, is an error here.
class UnpackedFile {
 public:
  /// kNotFound: there is none. kInvalidArgument: no regular file, or one that cannot be read.
  static absl::StatusOr<UnpackedFile> Open(const std::string& path);

  /// Up to `length` bytes, and how many there were: fewer at the end of the file alone.
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
  // Reads on where all that was read has been used. At the end of the file nothing is left.
  absl::Status Refill();
  absl::Status BeginGzip();
  absl::Status Inflate(std::uint8_t*& to, std::size_t& left);
  absl::Status Broken(absl::string_view how) const;

  std::string path_;
  std::unique_ptr<std::FILE, CloseFile> file_;
  std::vector<std::uint8_t> buffer_;
  // Of buffer_, what has not been used yet.
  std::uint8_t* next_ = nullptr;
  std::size_t available_ = 0;
  // Null for a plain file.
  std::unique_ptr<z_stream, EndInflate> inflate_;
  bool between_members_ = false;
};

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_TRAIN_UNPACKED_FILE_H_
