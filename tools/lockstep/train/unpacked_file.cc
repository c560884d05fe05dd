#include "lockstep/tools/lockstep/train/unpacked_file.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace lockstep::tools {
namespace {

constexpr std::size_t kBufferBytes = 64 << 10;
constexpr std::uint8_t kGzipMagic[] = {0x1F, 0x8B};
// zlib: the largest window, and the wrapper is gzip's.
constexpr int kGzipWindowBits = 15 + 16;

absl::Status Unreadable(const std::string& path, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", why));
}

}  // namespace

absl::StatusOr<UnpackedFile> UnpackedFile::Open(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) {
    const absl::Status status = Unreadable(path, std::strerror(errno));
    return errno == ENOENT ? absl::NotFoundError(status.message()) : status;
  }
  if (S_ISDIR(info.st_mode)) return Unreadable(path, "is a directory; an IDX file is needed");
  if (!S_ISREG(info.st_mode))
    return Unreadable(path, "is not a regular file; an IDX file is needed");
  UnpackedFile file;
  file.path_ = path;
  file.file_.reset(std::fopen(path.c_str(), "rb"));
  if (file.file_ == nullptr) return Unreadable(path, std::strerror(errno));
  file.buffer_.resize(kBufferBytes);
  LOCKSTEP_RETURN_IF_ERROR(file.Refill());
  if (file.available_ >= sizeof(kGzipMagic) &&
      std::equal(std::begin(kGzipMagic), std::end(kGzipMagic), file.next_)) {
    LOCKSTEP_RETURN_IF_ERROR(file.BeginGzip());
  }
  return file;
}

absl::Status UnpackedFile::BeginGzip() {
  auto stream = std::make_unique<z_stream>();
  if (inflateInit2(stream.get(), kGzipWindowBits) != Z_OK)
    return absl::ResourceExhaustedError(absl::StrCat(path_, ": no memory to unpack it"));
  inflate_.reset(stream.release());
  return absl::OkStatus();
}

absl::Status UnpackedFile::Refill() {
  if (available_ > 0) return absl::OkStatus();
  next_ = buffer_.data();
  errno = 0;
  available_ = std::fread(next_, 1, buffer_.size(), file_.get());
  return std::ferror(file_.get()) == 0 ? absl::OkStatus() : Unreadable(path_, std::strerror(errno));
}

absl::StatusOr<std::size_t> UnpackedFile::Read(std::uint8_t* to, std::size_t length) {
  std::size_t left = length;
  while (left > 0) {
    LOCKSTEP_RETURN_IF_ERROR(Refill());
    if (inflate_ != nullptr) {
      if (available_ == 0 && between_members_) break;
      LOCKSTEP_RETURN_IF_ERROR(Inflate(to, left));
      continue;
    }
    if (available_ == 0) break;
    const std::size_t step = std::min(left, available_);
    std::memcpy(to, next_, step);
    to += step;
    left -= step;
    next_ += step;
    available_ -= step;
  }
  return length - left;
}

absl::Status UnpackedFile::Inflate(std::uint8_t*& to, std::size_t& left) {
  if (available_ == 0) return Broken("it ends too early");
  z_stream& stream = *inflate_;
  if (between_members_ && inflateReset(&stream) != Z_OK) return Broken("zlib cannot go on");
  const bool begins_another = between_members_;
  const auto room = static_cast<uInt>(std::min<std::size_t>(left, 1 << 20));
  stream.next_in = next_;
  stream.avail_in = static_cast<uInt>(available_);
  stream.next_out = to;
  stream.avail_out = room;
  const int result = inflate(&stream, Z_NO_FLUSH);
  next_ = stream.next_in;
  available_ = stream.avail_in;
  to += room - stream.avail_out;
  left -= room - stream.avail_out;
  between_members_ = result == Z_STREAM_END;
  if (result == Z_OK || result == Z_STREAM_END) return absl::OkStatus();
  return Broken(begins_another          ? "what comes after its last member is no other"
                : stream.msg != nullptr ? stream.msg
                                        : zError(result));
}

absl::Status UnpackedFile::Broken(absl::string_view how) const {
  return Unreadable(
      path_, absl::StrCat("cannot be unpacked: ", how, "; a whole gzip or plain file is needed"));
}

}  // namespace lockstep::tools
