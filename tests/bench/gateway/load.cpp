// Fake engine and client in one program, over one epoll and one clock. Commands come on standard
// input, one a line; each is answered by one line of JSON. README.md has them.
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>

#include <csignal>
#include <deque>
#include <iostream>
#include <sstream>
#include <thread>

#include "runs.hpp"

namespace {

class Commands : public Watched {
 public:
  explicit Commands(Loop& loop) : Watched(STDIN_FILENO), loop_(loop) { loop.add(this, EPOLLIN); }
  void on_events(std::uint32_t) override {
    std::array<char, 4096> data{};
    const ssize_t got = read(fd(), data.data(), data.size());
    if (got <= 0) {
      is_over = true;
      loop_.change(this, 0);
      return;
    }
    rest_.append(data.data(), static_cast<std::size_t>(got));
    for (std::size_t end; (end = rest_.find('\n')) != std::string::npos; rest_.erase(0, end + 1)) {
      lines.push_back(rest_.substr(0, end));
    }
  }
  std::deque<std::string> lines;
  bool is_over = false;

 private:
  Loop& loop_;
  std::string rest_;
};

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out.push_back('\\');
    out.push_back(c >= 0 && c < ' ' ? ' ' : c);
  }
  return out + "\"";
}

std::string as_json(const Measured& measured) {
  std::ostringstream out;
  out << "{\"fault\":" << quoted(measured.fault);
  for (const auto& [name, value] : measured.counts) out << "," << quoted(name) << ":" << value;
  for (const auto& [name, values] : measured.samples_ns) {
    out << "," << quoted(name) << ":[";
    for (std::size_t i = 0; i < values.size(); ++i) out << (i > 0 ? "," : "") << values[i];
    out << "]";
  }
  out << "}";
  return out.str();
}

// Keep a core awake with a thread that gives way to everything. A virtual core that halts takes
// tens of microseconds to wake up, which would be most of what a chunk's delay shows.
void keep_awake(int core) {
  std::thread([core] {
    cpu_set_t cores;
    CPU_ZERO(&cores);
    CPU_SET(core, &cores);
    sched_param none{};
    if (pthread_setaffinity_np(pthread_self(), sizeof cores, &cores) != 0) return;
    if (pthread_setschedparam(pthread_self(), SCHED_IDLE, &none) != 0) return;
    for (volatile u64 turns = 0;;) turns = turns + 1;
  }).detach();
}

Measured obey(Runs& runs, const std::string& line) {
  std::istringstream words(line);
  std::string mode, word;
  words >> mode;
  std::map<std::string, std::string> values;
  while (words >> word) {
    const std::size_t sign = word.find('=');
    if (sign != std::string::npos) values[word.substr(0, sign)] = word.substr(sign + 1);
  }
  if (mode == "load") {
    runs.load(values["name"], values["path"]);
    return {};
  }
  if (mode == "awake") {
    keep_awake(std::stoi(values["core"]));
    return {};
  }
  return runs.run(mode, Asked(values));
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  EngineTexts texts;
  if (argc > 1) texts.model = argv[1];
  if (argc > 2) texts.context = argv[2];
  if (argc > 3) texts.answer = argv[3];
  Loop loop;
  Streams streams;
  Engine engine(loop, streams, texts);
  Runs runs(loop, streams, engine);
  Commands commands(loop);
  std::cout << "{\"port\":" << engine.port << "}" << std::endl;
  while (true) {
    loop.until([&] { return commands.is_over || !commands.lines.empty(); }, 3600 * kSecond);
    if (commands.lines.empty()) {
      if (commands.is_over) return 0;
      continue;
    }
    const std::string line = commands.lines.front();
    commands.lines.pop_front();
    std::cout << as_json(obey(runs, line)) << std::endl;
  }
}
