#include "lockstep/tools/lockstep/train/idx.h"

#include <sys/stat.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

namespace lockstep::tools {
namespace {

constexpr std::uint64_t kMaxBytes = std::uint64_t{1} << 30;
constexpr std::size_t kMaxAxes = 4;

// Fashion-MNIST's own mean and deviation, of pixels in [0, 1].
constexpr float kMean = 0.2860f;
constexpr float kDeviation = 0.3530f;

constexpr std::size_t kBufferBytes = 64 << 10;
constexpr std::uint8_t kGzipMagic[] = {0x1F, 0x8B};
// zlib: the largest window, and the wrapper is gzip's.
constexpr int kGzipWindowBits = 15 + 16;

absl::Status Unreadable(const std::string& path, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", why));
}

// The bytes of a file, decompressed while reading if it is gzip.
//
// The first two bytes decide whether a file is gzip (RFC 1952), not its name. It must then be one
// or more members, each complete and with the right checksum, and nothing else: trailing bytes
// that gzip(1) would ignore, such as the zeros of a tape archive, are an error here.
class UnpackedFile {
 public:
  // kNotFound: there is none. kInvalidArgument: not a regular file, or not readable.
  static absl::StatusOr<UnpackedFile> Open(const std::string& path) {
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

  // Reads up to `length` bytes and returns how many: fewer only at the end of the file.
  // kInvalidArgument: broken gzip, or it cannot be read.
  absl::StatusOr<std::size_t> Read(std::uint8_t* to, std::size_t length) {
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
  absl::Status Refill() {
    if (available_ > 0) return absl::OkStatus();
    next_ = buffer_.data();
    errno = 0;
    available_ = std::fread(next_, 1, buffer_.size(), file_.get());
    return std::ferror(file_.get()) == 0 ? absl::OkStatus()
                                         : Unreadable(path_, std::strerror(errno));
  }

  absl::Status BeginGzip() {
    auto stream = std::make_unique<z_stream>();
    if (inflateInit2(stream.get(), kGzipWindowBits) != Z_OK)
      return absl::ResourceExhaustedError(absl::StrCat(path_, ": no memory to unpack it"));
    inflate_.reset(stream.release());
    return absl::OkStatus();
  }

  absl::Status Inflate(std::uint8_t*& to, std::size_t& left) {
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

  absl::Status Broken(absl::string_view how) const {
    return Unreadable(
        path_, absl::StrCat("cannot be unpacked: ", how, "; a whole gzip or plain file is needed"));
  }

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

absl::Status Bad(const std::string& path, absl::string_view found, absl::string_view right) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", found, "; ", right));
}

std::uint32_t BigEndian(const std::uint8_t* bytes) {
  return std::uint32_t{bytes[0]} << 24 | std::uint32_t{bytes[1]} << 16 |
         std::uint32_t{bytes[2]} << 8 | bytes[3];
}

// The extents, and their product, which is at most kMaxBytes.
absl::Status ReadHeader(const std::string& path, UnpackedFile& file,
                        std::vector<std::uint32_t>& extents, std::size_t& product) {
  std::uint8_t magic[4];
  LOCKSTEP_ASSIGN_OR_RETURN(const std::size_t got, file.Read(magic, sizeof(magic)));
  if (got < sizeof(magic))
    return Bad(path, absl::StrCat("has ", got, " bytes"), "an IDX header has at least 8");
  const std::size_t num_axes = magic[3];
  if (magic[0] != 0 || magic[1] != 0 || magic[2] != 8 || num_axes < 1 || num_axes > kMaxAxes) {
    return Bad(path, absl::StrCat("begins with the number ", BigEndian(magic)),
               "an IDX file of bytes begins with 2049 to 2052");
  }
  std::uint8_t bytes[4 * kMaxAxes];
  LOCKSTEP_ASSIGN_OR_RETURN(const std::size_t header, file.Read(bytes, 4 * num_axes));
  if (header < 4 * num_axes)
    return Bad(path, "ends inside its header", absl::StrCat(num_axes, " extents are needed"));
  std::uint64_t elements = 1;
  for (std::size_t axis = 0; axis < num_axes; ++axis) {
    extents.push_back(BigEndian(bytes + 4 * axis));
    // Below 2^62 as long as every product so far was within the limit; an extent of 0 does not hide
    // that the others are too large.
    elements *= std::max<std::uint64_t>(extents.back(), 1);
    if (elements > kMaxBytes) return Bad(path, "claims more than 1 GiB", "image sets are smaller");
  }
  product = std::find(extents.begin(), extents.end(), 0u) == extents.end() ? elements : 0;
  return absl::OkStatus();
}

// Grows with the file, not with what its header claims.
absl::Status ReadBody(const std::string& path, UnpackedFile& file, std::size_t length,
                      std::vector<std::uint8_t>& bytes) {
  constexpr std::size_t kStep = std::size_t{4} << 20;
  while (bytes.size() < length) {
    const std::size_t before = bytes.size();
    const std::size_t step = std::min(kStep, length - before);
    bytes.resize(before + step);
    LOCKSTEP_ASSIGN_OR_RETURN(const std::size_t got, file.Read(bytes.data() + before, step));
    if (got < step)
      return Bad(path, absl::StrCat("holds ", before + got, " bytes"),
                 absl::StrCat("its header says ", length));
  }
  std::uint8_t extra;
  LOCKSTEP_ASSIGN_OR_RETURN(const std::size_t more, file.Read(&extra, 1));
  return more == 0
             ? absl::OkStatus()
             : Bad(path, "goes on after its last byte", absl::StrCat("its header says ", length));
}

// The file itself, or its gzipped form if only that exists.
std::string FindFile(const std::string& directory, const std::string& name) {
  const std::string plain = absl::StrCat(directory, "/", name);
  struct stat info;
  return stat(plain.c_str(), &info) == 0 ? plain : plain + ".gz";
}

}  // namespace

const char* const kFashionMnistDirectory = "/usr/share/datasets/fashion-mnist";

absl::StatusOr<IdxArray> ReadIdx(const std::string& path) {
  LOCKSTEP_ASSIGN_OR_RETURN(UnpackedFile file, UnpackedFile::Open(path));
  IdxArray array;
  std::size_t product = 0;
  LOCKSTEP_RETURN_IF_ERROR(ReadHeader(path, file, array.extents, product));
  LOCKSTEP_RETURN_IF_ERROR(ReadBody(path, file, product, array.bytes));
  return array;
}

absl::StatusOr<Dataset> ReadDataset(const std::string& directory, const std::string& prefix) {
  const std::string images_path = FindFile(directory, prefix + "-images-idx3-ubyte");
  const std::string labels_path = FindFile(directory, prefix + "-labels-idx1-ubyte");
  LOCKSTEP_ASSIGN_OR_RETURN(const IdxArray images, ReadIdx(images_path));
  LOCKSTEP_ASSIGN_OR_RETURN(const IdxArray labels, ReadIdx(labels_path));
  if (images.extents.size() != 3 || images.bytes.empty()) {
    return Bad(
        images_path,
        absl::StrCat("has ", images.extents.size(), " axes and ", images.bytes.size(), " bytes"),
        "images are needed: [count, height, width]");
  }
  if (labels.extents.size() != 1 || labels.extents[0] != images.extents[0]) {
    return Bad(labels_path, absl::StrCat("holds ", labels.bytes.size(), " labels"),
               absl::StrCat("there are ", images.extents[0], " images"));
  }
  const auto wrong = std::find_if(labels.bytes.begin(), labels.bytes.end(),
                                  [](std::uint8_t label) { return label > 9; });
  if (wrong != labels.bytes.end()) {
    return Bad(labels_path,
               absl::StrCat("label ", wrong - labels.bytes.begin(), " is ", int{*wrong}),
               "labels are from 0 to 9");
  }
  Dataset dataset;
  dataset.num_images = images.extents[0];
  dataset.num_pixels = static_cast<std::int64_t>(images.bytes.size()) / dataset.num_images;
  dataset.images.reserve(images.bytes.size());
  for (const std::uint8_t pixel : images.bytes) {
    dataset.images.push_back((static_cast<float>(pixel) / 255.0f - kMean) / kDeviation);
  }
  dataset.labels.assign(labels.bytes.begin(), labels.bytes.end());
  return dataset;
}

}  // namespace lockstep::tools
