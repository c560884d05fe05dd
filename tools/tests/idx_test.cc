#include "lockstep/tools/lockstep/train/idx.h"

#include <stdlib.h>
#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "lockstep/tests/catch.h"
#include "lockstep/tools/tests/image_set.h"

namespace lockstep::tools {
namespace {

using lockstep::testing::Says;

// A directory that goes away with the test.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    path_ = (std::filesystem::temp_directory_path() / "lockstep-idx-XXXXXX").string();
    LOCKSTEP_CHECK(mkdtemp(path_.data()) != nullptr);
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }

  std::string Write(const std::string& name, const std::string& bytes) const {
    const std::string path = path_ + "/" + name;
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

std::string Idx(std::initializer_list<std::uint32_t> extents, const std::string& bytes) {
  std::string file = Number(0x800 + static_cast<std::uint32_t>(extents.size()));
  for (const std::uint32_t extent : extents) file += Number(extent);
  return file + bytes;
}

std::string Gzip(const std::string& plain) {
  z_stream stream{};
  LOCKSTEP_CHECK(deflateInit2(&stream, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  std::string packed(compressBound(plain.size()) + 64, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(plain.data()));
  stream.avail_in = static_cast<uInt>(plain.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  LOCKSTEP_CHECK(deflate(&stream, Z_FINISH) == Z_STREAM_END);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

TEST_CASE("plain and gzipped files are read alike") {
  const TemporaryDirectory directory;
  const std::string file = Idx({2, 3}, "abcdef");
  for (const std::string& bytes : {file, Gzip(file)}) {
    const auto array = ReadIdx(directory.Write("file", bytes));
    REQUIRE_OK(array);
    CHECK(array->extents == std::vector<std::uint32_t>{2, 3});
    CHECK(std::string(array->bytes.begin(), array->bytes.end()) == "abcdef");
  }
  const auto empty = ReadIdx(directory.Write("empty", Idx({0, 5}, "")));
  REQUIRE_OK(empty);
  CHECK(empty->bytes.empty());
}

TEST_CASE("a file cut off anywhere is refused, plain or gzipped, and never crashes") {
  const TemporaryDirectory directory;
  const std::string file = Idx({4, 7}, std::string(28, 'x'));
  for (const std::string& whole : {file, Gzip(file)}) {
    for (std::size_t length = 0; length < whole.size(); ++length) {
      INFO(length << " of " << whole.size());
      CHECK_FALSE(ReadIdx(directory.Write("cut", whole.substr(0, length))).ok());
    }
  }
  const std::string packed = Gzip(file);
  for (std::size_t length = 2; length < packed.size(); ++length) {
    INFO(length << " of " << packed.size());
    CHECK(Says(ReadIdx(directory.Write("cut", packed.substr(0, length))).status(),
               "cannot be unpacked: it ends too early"));
  }
}

TEST_CASE("a gzipped file may have several members, and nothing after the last") {
  const TemporaryDirectory directory;
  const std::string file = Idx({2, 3}, "abcdef");
  const std::string whole = Gzip(file);
  for (std::size_t cut = 0; cut <= file.size(); ++cut) {
    const auto array =
        ReadIdx(directory.Write("members", Gzip(file.substr(0, cut)) + Gzip(file.substr(cut))));
    REQUIRE_OK(array);
    CHECK(std::string(array->bytes.begin(), array->bytes.end()) == "abcdef");
  }
  const auto error = [&](const std::string& after) {
    return ReadIdx(directory.Write("after", whole + after)).status();
  };
  for (const std::string& after :
       {std::string("x"), std::string("garbage after it"), std::string(1, '\0'),
        std::string(1000, '\0'), std::string("\x1f"), std::string("\x1f\x8b"), whole.substr(0, 10),
        whole.substr(0, whole.size() - 1), file}) {
    INFO(after.size() << " bytes after it");
    CHECK(absl::IsInvalidArgument(error(after)));
  }
  CHECK(Says(error("garbage after it"), "what comes after its last member is no other"));
  CHECK(Says(error(Gzip("more")), "goes on after its last byte"));
  CHECK(error(Gzip("")).ok());
}

TEST_CASE("what a file is tells its beginning, not its name") {
  const TemporaryDirectory directory;
  const std::string file = Idx({3}, "abc");
  CHECK(ReadIdx(directory.Write("plain.gz", file)).ok());
  CHECK(ReadIdx(directory.Write("packed", Gzip(file))).ok());
  CHECK(Says(ReadIdx(directory.Write("empty.gz", "")).status(), "has 0 bytes"));
  CHECK(Says(ReadIdx(directory.Write("one", "\x1f")).status(), "has 1 bytes"));
}

TEST_CASE("files larger than any buffer are read to the last byte, plain or gzipped") {
  const TemporaryDirectory directory;
  std::string bytes(5 << 20, '\0');
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 7 + i / 251);
  const std::string file = Idx({5 << 20}, bytes);
  for (const std::string& whole :
       {file, Gzip(file), Gzip(file.substr(0, 65536)) + Gzip(file.substr(65536))}) {
    const auto array = ReadIdx(directory.Write("large", whole));
    REQUIRE_OK(array);
    CHECK(std::equal(bytes.begin(), bytes.end(), array->bytes.begin(), array->bytes.end(),
                     [](char a, std::uint8_t b) { return static_cast<std::uint8_t>(a) == b; }));
    CHECK_FALSE(ReadIdx(directory.Write("longer", whole + "x")).ok());
  }
}

TEST_CASE("any one byte changed in a gzipped file gives the same array or an error") {
  const TemporaryDirectory directory;
  const std::string file = Idx({4, 7}, std::string(28, 'x'));
  const std::string packed = Gzip(file);
  for (std::size_t at = 0; at < packed.size(); ++at) {
    std::string changed = packed;
    changed[at] = static_cast<char>(changed[at] ^ 0x55);
    const auto array = ReadIdx(directory.Write("changed", changed));
    if (array.ok())
      CHECK(std::string(array->bytes.begin(), array->bytes.end()) == std::string(28, 'x'));
  }
}

TEST_CASE("headers that lie are refused with what they said and what is there") {
  const TemporaryDirectory directory;
  const auto error = [&](const std::string& bytes) {
    return ReadIdx(directory.Write("bad", bytes)).status();
  };
  CHECK(Says(error(""), "has 0 bytes"));
  CHECK(Says(error("PK\3\4 no idx"), "begins with the number"));
  CHECK(Says(error(Number(0x0D03)), "begins with the number"));
  CHECK(Says(error(Number(0x0800)), "begins with the number"));
  CHECK(Says(error(Number(0x0805)), "begins with the number"));
  CHECK(Says(error(Idx({4}, "abc")), "holds 3 bytes; its header says 4"));
  CHECK(Says(error(Idx({3}, "abcd")), "goes on after its last byte; its header says 3"));
  CHECK(Says(error(Gzip(Idx({3}, "abcd"))), "goes on after its last byte"));
  CHECK(Says(error(Idx({0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF}, "")), "more than 1 GiB"));
  // Extents whose product wraps around to something small, and a zero that would hide them.
  CHECK(Says(error(Idx({0x80000000, 0x80000000, 4}, "")), "more than 1 GiB"));
  CHECK(Says(error(Idx({0xFFFFFFFF, 0xFFFFFFFF, 0}, "")), "more than 1 GiB"));
  // A bomb: a gigabyte of header for nothing; only what is there is kept.
  CHECK(Says(error(Gzip(Idx({1u << 30}, std::string(1000, 'x')))), "holds 1000 bytes"));
}

TEST_CASE("what is no file is refused by name") {
  const TemporaryDirectory directory;
  CHECK(ReadIdx(directory.path() + "/none").status().code() == absl::StatusCode::kNotFound);
  CHECK(Says(ReadIdx(directory.path()).status(), "is a directory"));
  CHECK(Says(ReadIdx("/dev/null").status(), "is not a regular file"));
}

void WriteSet(const TemporaryDirectory& directory, const std::string& images,
              const std::string& labels) {
  directory.Write("train-images-idx3-ubyte", images);
  directory.Write("train-labels-idx1-ubyte", labels);
}

TEST_CASE("a data set is its images as rows, and their labels") {
  const TemporaryDirectory directory;
  WriteSet(directory, Idx({2, 1, 3}, std::string("\x00\xFF\x00\x00\x00\x00", 6)),
           Idx({2}, "\x07\x01"));
  const auto dataset = ReadDataset(directory.path(), "train");
  REQUIRE_OK(dataset);
  CHECK(dataset->num_images == 2);
  CHECK(dataset->num_pixels == 3);
  CHECK(dataset->labels == std::vector<std::int32_t>{7, 1});
  CHECK(dataset->images[0] == dataset->images[5]);
}

// Pixels in [0, 1], less the mean of Fashion-MNIST's, over their deviation.
TEST_CASE("pixels become numbers around 0") {
  const TemporaryDirectory directory;
  WriteSet(directory, Idx({1, 1, 3}, std::string("\x00\x33\xFF", 3)), Idx({1}, "\x09"));
  const auto dataset = ReadDataset(directory.path(), "train");
  REQUIRE_OK(dataset);
  CHECK(std::abs(dataset->images[0] - -0.2860 / 0.3530) < 1e-6);
  CHECK(std::abs(dataset->images[1] - (0.2 - 0.2860) / 0.3530) < 1e-6);
  CHECK(std::abs(dataset->images[2] - (1 - 0.2860) / 0.3530) < 1e-6);
  CHECK(dataset->labels[0] == 9);
}

TEST_CASE("images and labels that do not go together are refused") {
  const TemporaryDirectory directory;
  const auto error = [&] { return ReadDataset(directory.path(), "train").status(); };
  CHECK(error().code() == absl::StatusCode::kNotFound);
  WriteSet(directory, Idx({2, 1, 1}, "ab"), Idx({3}, "\x01\x02\x03"));
  CHECK(Says(error(), "holds 3 labels; there are 2 images"));
  WriteSet(directory, Idx({2, 1, 1}, "ab"), Idx({2}, "\x01\x0A"));
  CHECK(Says(error(), "label 1 is 10; labels are from 0 to 9"));
  WriteSet(directory, Idx({2, 1}, "ab"), Idx({2}, "\x01\x02"));
  CHECK(Says(error(), "has 2 axes"));
  WriteSet(directory, Idx({0, 1, 1}, ""), Idx({0}, ""));
  CHECK(Says(error(), "images are needed"));
}

}  // namespace
}  // namespace lockstep::tools
