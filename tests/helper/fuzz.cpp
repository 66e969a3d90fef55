// Any bytes into every parser: the first byte chooses. The result must also survive the JSON writer.
#include "../../unglitched_vllm/force_swap.cpp"

namespace {
void require(bool law) {
  if (!law) std::abort();
}
void deciding(string_view text) {
  Request request;
  Facts facts;
  facts.now.values = parse_keyed(text);
  facts.swaps = parse_swaps(text);
  Candidate one;
  one.cgroup = string(text.substr(0, 64));
  one.vmas = parse_smaps(text);
  one.stat = parse_keyed(text);
  one.swap_room = parse_limit(text);
  facts.candidates.push_back(std::move(one));
  request.target_available = facts.now["target"];
  const Decision decision = decide(request, facts);
  const Verdict& verdict = decision.verdict;
  require(verdict.reason != "feasible" || !decision.order.empty());
  require(!verdict.reason.empty() && (verdict.exit == kMet || !verdict.message.empty()));
}
void command_line(string_view text) {
  vector<string> words;
  for (const string_view word : split(text, "\n")) words.emplace_back(word);
  Request request;
  const string wrong = parse_words(request, words);
  require(!wrong.empty() || !request.cmd.empty());
}
void report(string_view text) {
  const string out = object({{"text", text}}).text;
  for (const char c : out) require(static_cast<unsigned char>(c) >= 0x20);
  for (size_t i = 0; i < out.size(); i += utf8_length(out, i)) require(utf8_length(out, i) > 0);
}
void numbers(string_view text) {
  const auto size = parse_number(text, true);
  require(!size || (!text.empty() && *size >= 0));
  (void)parse_limit(text);
  (void)parse_cgroup(text);
}
void machine(string_view text) {
  for (const SwapArea& area : parse_swaps(text)) require(area.used <= area.size);
  if (const auto stat = parse_stat(text)) require(stat->names.size() == 1);
  for (const Vma& vma : parse_smaps(text)) require(vma.movable && vma.length > 0);
  (void)parse_keyed(text);
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 5) {
    case 0: deciding(text); break;
    case 1: command_line(text); break;
    case 2: report(text); break;
    case 3: numbers(text); break;
    default: machine(text); break;
  }
  return 0;
}
