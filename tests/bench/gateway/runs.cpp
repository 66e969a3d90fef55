#include "runs.hpp"

#include <dirent.h>

#include <fstream>
#include <sstream>
#include <utility>

namespace {

constexpr u64 kLimit = 40 * kSecond;  // of one phase: nothing here takes so long unless it hangs

// The CPU time that all threads of these processes have used, in nanoseconds.
u64 cpu_of(const std::string& pids) {
  u64 total = 0;
  std::istringstream list(pids);
  for (std::string pid; std::getline(list, pid, ',');) {
    const std::string folder = "/proc/" + pid + "/task";
    DIR* tasks = opendir(folder.c_str());
    if (tasks == nullptr) continue;
    while (const dirent* task = readdir(tasks)) {
      if (task->d_name[0] == '.') continue;
      std::ifstream file(folder + "/" + task->d_name + "/schedstat");
      u64 running = 0;
      if (file >> running) total += running;
    }
    closedir(tasks);
  }
  return total;
}

}  // namespace

void Runs::load(const std::string& name, const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string body((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (body.find(kName) == std::string::npos) die(path + " has no place for a stream's number");
  bodies_[name] = std::move(body);
}

Measured Runs::run(const std::string& mode, const Asked& asked) {
  asked_ = std::make_unique<Asked>(asked);
  measured_ = Measured();
  ++engine_.run;
  const u64 counted = engine_.counted;
  if (bodies_.count(asked.text("body")) == 0) {
    measured_.fault = "no such body";
  } else if (mode == "lockstep") {
    lockstep();
  } else if (mode == "paced") {
    paced();
  } else if (mode == "requests") {
    requests();
  } else if (mode == "aborts") {
    aborts();
  } else if (mode == "stall") {
    stall();
  } else if (mode == "pool") {
    pool();
  } else {
    measured_.fault = "no such run";
  }
  measured_.counts["tokenized"] = engine_.counted - counted;
  close_all();
  return measured_;
}

Client* Runs::connect(const std::string& body) {
  const std::string port = asked_->text("port");
  const Target target{port.empty() ? engine_.port : static_cast<std::uint16_t>(std::stoul(port)), asked_->text("key")};
  auto client = std::make_unique<Client>(loop_, target, bodies_[asked_->text(body)]);
  Client* raw = client.get();
  clients_[raw] = std::move(client);
  return raw;
}

void Runs::close(Client* client) {
  const auto found = clients_.find(client);
  if (found == clients_.end()) return;
  if (!client->fault.empty() && measured_.fault.empty()) measured_.fault = client->fault;
  loop_.close(std::move(found->second));
  clients_.erase(found);
}

void Runs::close_all() {
  loop_.forget_timers();
  streams_.each([](Stream* stream) {
    stream->on_chunk = [](u64) {};
    stream->on_ended = stream->on_left = [] {};
    if (stream->engine != nullptr) stream->engine->drop();
  });
  while (!clients_.empty()) close(clients_.begin()->first);
  loop_.pause(2 * kMs);
  streams_.clear();
}

void Runs::settle() { loop_.pause(asked_->number("settle_ms", 15) * kMs); }

bool Runs::wait(const std::function<bool()>& done, const std::string& what) {
  const auto broken = [this] {
    for (const auto& [client, owned] : clients_) {
      if (!client->fault.empty()) return true;
    }
    return false;
  };
  const bool ended = loop_.until([&] { return done() || broken(); }, kLimit);
  if (ended && !broken()) return true;
  if (!ended && measured_.fault.empty()) measured_.fault = "nothing came for 40 s: " + what;
  return false;
}

void Runs::begin_account() {
  settle();
  cpu_ns_ = cpu_of(asked_->text("pids"));
  began_ns_ = now_ns();
}

void Runs::end_account(const std::string& name, u64 count) {
  measured_.counts["wall_ns"] = now_ns() - began_ns_;
  settle();
  measured_.counts["cpu_ns"] = cpu_of(asked_->text("pids")) - cpu_ns_;
  measured_.counts[name] = count;
}

// The next chunk of a stream leaves when the client has the last one. Before and after the
// measured part nothing moves, so that the account is exact.
void Runs::lockstep() {
  const u64 streams = asked_->number("streams"), chunks = asked_->number("chunks");
  u64 got = 0, until = asked_->number("warm", 30) * streams, ended = 0;
  std::vector<Stream*> held;
  std::vector<u64>& delays = measured_.samples_ns["delay"];
  bool measuring = false;
  for (u64 i = 0; i < streams; ++i) {
    Stream* stream = streams_.open(Manner::kOnDemand, asked_->text("kind") == "reasoning");
    stream->on_ended = [&] { ++ended; };
    stream->on_chunk = [&, stream](u64 delay) {
      if (measuring && delays.size() < 5000) delays.push_back(delay);
      if (++got <= until && stream->engine != nullptr) {
        stream->engine->send_chunk();
      } else {
        held.push_back(stream);
      }
    };
    connect()->ask(stream);
  }
  const auto all_held = [&] { return held.size() == streams; };
  if (!wait(all_held, "the first chunks")) return;
  begin_account();
  const u64 before = got;
  until = got + chunks;
  measuring = true;
  for (Stream* stream : std::exchange(held, {})) {
    if (stream->engine != nullptr) stream->engine->send_chunk();
  }
  if (!wait(all_held, "chunks")) return;
  end_account("chunks", got - before);
  measuring = false;
  for (Stream* stream : held) {
    if (stream->engine != nullptr) stream->engine->finish(true);
  }
  wait([&] { return ended == streams; }, "the end of the streams");
}

// Each stream's chunks leave by the clock, as an engine that decodes sends them.
void Runs::paced() {
  const u64 streams = asked_->number("streams"), gap = kSecond / asked_->number("rate");
  const u64 each = asked_->number("chunks");
  u64 arrived = 0, ended = 0, got = 0;
  bool measuring = false;
  std::vector<u64>& delays = measured_.samples_ns["delay"];
  std::vector<Stream*> all;
  for (u64 i = 0; i < streams; ++i) {
    Stream* stream = streams_.open(Manner::kOnDemand, asked_->text("kind") == "reasoning");
    stream->on_ended = [&] { ++ended; };
    stream->on_chunk = [&](u64 delay) {
      ++arrived;
      if (measuring) delays.push_back(delay), ++got;
    };
    all.push_back(stream);
    connect()->ask(stream);
  }
  if (!wait([&] { return arrived == streams; }, "the first chunks")) return;
  begin_account();
  measuring = true;
  const u64 start = now_ns() + kMs;
  for (u64 i = 0; i < streams * each; ++i) {
    Stream* stream = all[i % streams];
    loop_.at(start + i / streams * gap + i % streams * gap / streams, [stream] {
      if (stream->engine != nullptr) stream->engine->send_chunk();
    });
  }
  if (!wait([&] { return got == streams * each; }, "chunks")) return;
  end_account("chunks", got);
  for (Stream* stream : all) {
    if (stream->engine != nullptr) stream->engine->finish(true);
  }
  wait([&] { return ended == streams; }, "the end of the streams");
}

void Runs::ask_on(Client* client, u64* left, bool measured) {
  if (*left == 0) return;
  --*left;
  Stream* stream = streams_.open(Manner::kAtOnce, asked_->text("kind") == "reasoning");
  stream->on_ended = [this, client, left, measured] {
    if (measured) {
      ++measured_.counts["ended"];
      if (client->first_ns > 0) measured_.samples_ns["ttft"].push_back(client->first_ns - client->began_ns);
    } else {
      ++measured_.counts["warmed"];
    }
    // asked from outside the reply's own callback: the client is free by then
    if (client->fault.empty()) loop_.at(0, [this, client, left, measured] { ask_on(client, left, measured); });
  };
  client->ask(stream);
}

void Runs::serve_requests(const std::vector<Client*>& clients, u64 count, bool measured) {
  u64 left = count;
  const std::string name = measured ? "ended" : "warmed";
  measured_.counts[name] = 0;
  for (Client* client : clients) ask_on(client, &left, measured);
  wait([&] { return measured_.counts[name] == count; }, "replies");
  loop_.forget_timers();
}

// Whole requests, one after another on each connection; the engine answers at once, in one write.
void Runs::requests() {
  std::vector<Client*> clients;
  for (u64 i = 0; i < asked_->number("streams"); ++i) clients.push_back(connect());
  serve_requests(clients, asked_->number("warm", 10), false);
  begin_account();
  serve_requests(clients, asked_->number("count"), true);
  end_account("requests", measured_.counts["ended"]);
}

void Runs::leave(Client* client, Stream* stream, const std::shared_ptr<bool>& seen) {
  const u64 left_ns = now_ns();
  stream->on_left = [this, left_ns, seen] {
    *seen = true;
    measured_.samples_ns["left"].push_back(now_ns() - left_ns);
  };
  close(client);
}

// One client that leaves: in mid-stream, after the head, or before it.
void Runs::abort_once(u64* left, u64* busy) {
  if (*left == 0) return;
  --*left;
  ++*busy;
  const std::string window = asked_->text("window");
  const Manner manner = window == "stream" ? Manner::kOnDemand : window == "head" ? Manner::kHeadOnly : Manner::kSilent;
  Stream* stream = streams_.open(manner, false);
  Client* client = connect();
  const auto seen = std::make_shared<bool>(false);
  constexpr u64 kGap = 25 * kMs;
  // 40 chunks a second for as long as the engine thinks that somebody listens
  const auto tick = std::make_shared<std::function<void()>>();
  *tick = [this, stream, again = std::weak_ptr(tick)] {
    if (stream->engine == nullptr) return;
    stream->engine->send_chunk();
    if (const auto next = again.lock()) loop_.after(kGap, [next] { (*next)(); });
  };
  const auto gone = [this, seen, stream, left, busy, tick] {
    --*busy;
    if (!*seen) ++measured_.counts["missed"];
    if (stream->engine != nullptr) stream->engine->finish(stream->manner != Manner::kSilent);
    abort_once(left, busy);
  };
  stream->on_arrived = [this, client, stream, seen, gone, tick, manner] {
    const u64 wait_ns = (10 + static_cast<u64>(stream->number) * 7919 % 40) * kMs;  // spread over a chunk's gap
    if (manner == Manner::kOnDemand) loop_.after(kGap, [tick] { (*tick)(); });
    loop_.after(wait_ns, [this, client, stream, seen, gone] {
      leave(client, stream, seen);
      const auto look = std::make_shared<std::function<void(u64)>>();
      *look = [this, seen, gone, look](u64 end_ns) {
        if (*seen || now_ns() >= end_ns) {
          loop_.at(0, [look] { *look = nullptr; });
          gone();
        } else {
          loop_.after(kMs, [look, end_ns] { (*look)(end_ns); });
        }
      };
      (*look)(now_ns() + asked_->number("limit_ms") * kMs);
    });
  };
  client->ask(stream);
}

void Runs::aborts() {
  u64 left = asked_->number("count"), busy = 0;
  measured_.counts["missed"] = 0;
  for (u64 i = 0; i < asked_->number("streams"); ++i) abort_once(&left, &busy);
  wait([&] { return left == 0 && busy == 0; }, "aborts");
  loop_.forget_timers();
  measured_.counts["aborts"] = asked_->number("count") - left;
}

// How long a stream stands still while a large body passes beside it: the longest delay of a
// chunk in lockstep, for each body.
void Runs::stall() {
  u64 longest = 0, ended = 0;
  const u64 count = asked_->number("count");
  bool over = false;
  Stream* probe = streams_.open(Manner::kOnDemand, false);
  probe->on_chunk = [&](u64 delay) {
    longest = std::max(longest, delay);
    if (!over && probe->engine != nullptr) probe->engine->send_chunk();
  };
  Client* client = connect();
  connect("probe")->ask(probe);
  loop_.pause(50 * kMs);
  for (u64 i = 0; i < count; ++i) {
    loop_.pause(5 * kMs);
    longest = 0;
    loop_.pause(5 * kMs);
    measured_.samples_ns["still"].push_back(longest);
    Stream* stream = streams_.open(Manner::kAtOnce, false);
    stream->on_ended = [&] { ++ended; };
    longest = 0;
    client->ask(stream);
    if (!wait([&] { return ended == i + 1; }, "a large body's reply")) break;
    loop_.pause(kMs);
    measured_.samples_ns["stall"].push_back(longest);
  }
  over = true;
  loop_.pause(5 * kMs);
}

// What a request costs while so many idle connections to the engine are pooled.
void Runs::pool() {
  const u64 idle = asked_->number("idle");
  std::vector<Stream*> arrived;
  u64 ended = 0;
  std::vector<Client*> clients;
  for (u64 i = 0; i < idle; ++i) {
    Stream* stream = streams_.open(Manner::kSilent, false);
    stream->on_arrived = [&arrived, stream] { arrived.push_back(stream); };
    stream->on_ended = [&] { ++ended; };
    clients.push_back(connect());
    clients.back()->ask(stream);
  }
  if (!wait([&] { return arrived.size() == idle; }, "that all are there at once")) return;
  for (Stream* stream : arrived) {
    if (stream->engine != nullptr) stream->engine->finish(false);
  }
  if (!wait([&] { return ended == idle; }, "their replies")) return;
  for (u64 i = 1; i < idle; ++i) close(clients[i]);
  loop_.pause(100 * kMs);
  serve_requests({clients[0]}, 5, false);
  begin_account();
  serve_requests({clients[0]}, asked_->number("count"), true);
  end_account("requests", measured_.counts["ended"]);
  measured_.counts["open"] = engine_.used();
}
