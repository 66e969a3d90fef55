// The runs: each sets up streams, waits, and says what it measured. README.md tells what each is.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "client.hpp"
#include "engine.hpp"
#include "loop.hpp"
#include "streams.hpp"

// What one run was asked: "streams=4 chunks=20000 …".
class Asked {
 public:
  explicit Asked(std::map<std::string, std::string> values) : values_(std::move(values)) {}
  std::string text(const std::string& name) const {
    const auto found = values_.find(name);
    return found == values_.end() ? "" : found->second;
  }
  u64 number(const std::string& name, u64 otherwise = 0) const {
    const std::string value = text(name);
    return value.empty() ? otherwise : std::stoull(value);
  }

 private:
  std::map<std::string, std::string> values_;
};

// What one run measured; lengths in nanoseconds.
struct Measured {
  std::map<std::string, u64> counts;
  std::map<std::string, std::vector<u64>> samples_ns;
  std::string fault;
};

class Runs {
 public:
  Runs(Loop& loop, Streams& streams, Engine& engine) : loop_(loop), streams_(streams), engine_(engine) {}

  void load(const std::string& name, const std::string& path);
  Measured run(const std::string& mode, const Asked& asked);

 private:
  void lockstep();
  void paced();
  void requests();
  void aborts();
  void stall();
  void pool();

  Client* connect(const std::string& body = "body");  // the option that names its body
  void close(Client* client);
  void close_all();
  void settle();  // let the proxy finish what it does
  bool wait(const std::function<bool()>& done, const std::string& what);
  void begin_account();
  void end_account(const std::string& name, u64 count);
  void ask_on(Client* client, u64* left, bool measured);
  void serve_requests(const std::vector<Client*>& clients, u64 count, bool measured);
  void abort_once(u64* left, u64* busy);
  void leave(Client* client, Stream* stream, const std::shared_ptr<bool>& seen);

  Loop& loop_;
  Streams& streams_;
  Engine& engine_;
  std::map<std::string, std::string> bodies_;
  std::map<Client*, std::unique_ptr<Client>> clients_;
  std::unique_ptr<Asked> asked_;
  Measured measured_;
  u64 cpu_ns_ = 0, began_ns_ = 0;
};
