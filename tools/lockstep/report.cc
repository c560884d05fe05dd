#include "lockstep/tools/lockstep/report.h"

#include <cstdio>
#include <fstream>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "lockstep/runtime/pinning.h"

namespace lockstep::tools {
namespace {

std::string ProcessorName() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const std::size_t colon = line.find(": ");
    if (line.rfind("model name", 0) == 0 && colon != std::string::npos)
      return line.substr(colon + 2);
  }
  return "unknown processor";
}

std::string TextOf(const Column& column, const nlohmann::json& row) {
  if (column.key == nullptr) return column.text;
  const auto entry = row.find(column.key);
  if (entry == row.end()) return "N/A";
  if (entry->is_string()) return entry->get<std::string>();
  if (entry->is_number_integer()) return absl::StrCat(entry->get<std::int64_t>());
  return absl::StrFormat("%.*f", column.digits, entry->get<double>());
}

}  // namespace

Report::Report(bool json, const std::string& title, std::vector<Column> columns,
               nlohmann::json document, const std::vector<std::string>& notes)
    : json_(json), columns_(std::move(columns)), document_(std::move(document)) {
  document_["machine"] = MachineLine();
  document_["rows"] = nlohmann::json::array();
  if (json_) return;
  std::printf("# %s\n# %s\n", title.c_str(), MachineLine().c_str());
  for (const std::string& note : notes) {
    if (!note.empty()) std::printf("# %s\n", note.c_str());
  }
  std::printf("#%*s", columns_[0].width - 1, columns_[0].title);
  for (std::size_t i = 1; i < columns_.size(); ++i)
    std::printf(" %*s", columns_[i].width, columns_[i].title);
  std::printf("\n");
}

void Report::Add(nlohmann::json row) {
  if (!json_) {
    const char* between = "";
    for (const Column& column : columns_) {
      std::printf("%s%*s", between, column.width, TextOf(column, row).c_str());
      between = " ";
    }
    std::printf("\n");
    std::fflush(stdout);
  }
  document_["rows"].push_back(std::move(row));
}

absl::Status Report::Finish() const {
  if (json_) std::printf("%s\n", document_.dump(2).c_str());
  auto wrong = document_.value("wrong", std::int64_t{0});
  for (const nlohmann::json& row : document_["rows"]) wrong += row.value("wrong", std::int64_t{0});
  if (wrong == 0) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat(document_["benchmark"].get<std::string>(), ": ", wrong, " elements were wrong"));
}

std::string DeviceList(absl::Span<const Device> devices) {
  return absl::StrJoin(devices, ", ", [](std::string* text, const Device& device) {
    text->append(device.ToString());
  });
}

std::string MachineLine() {
#ifdef NDEBUG
  const char* const build = "optimised build";
#else
  const char* const build = "build with assertions";
#endif
  return absl::StrCat(ProcessorName(), ", ", internal::NumUsableCores(), " usable cores, ", build);
}

}  // namespace lockstep::tools
