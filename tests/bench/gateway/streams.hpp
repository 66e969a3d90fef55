// A stream as both ends of it see it: what the fake engine is to do, and what the client got.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "loop.hpp"

class EngineConnection;

// What the engine does with a request that came in whole.
enum class Manner {
  kOnDemand,  // head, role and a first chunk at once; further chunks when it is told to
  kAtOnce,    // the whole reply in one write
  kHeadOnly,  // a head, then silence: a prefill after the head
  kSilent,    // nothing: a prefill, a tokenizer, a queue before the head
};

struct Stream {
  int number = 0;
  Manner manner = Manner::kAtOnce;
  bool reasoning = false;
  EngineConnection* engine = nullptr;  // while the engine has not finished it
  std::deque<u64> sent_ns;             // when each chunk left that the client has not got yet

  std::function<void()> on_arrived = [] {};                 // the engine has the whole request
  std::function<void(u64 delay_ns)> on_chunk = [](u64) {};  // the client got a chunk
  std::function<void()> on_ended = [] {};                   // the client got the whole reply
  std::function<void()> on_left = [] {};                    // the engine saw its connection close before the end
};

// All streams of one run, by their number.
class Streams {
 public:
  Stream* open(Manner manner, bool reasoning) {
    auto stream = std::make_unique<Stream>();
    stream->number = next_++;
    stream->manner = manner;
    stream->reasoning = reasoning;
    Stream* raw = stream.get();
    all_[raw->number] = std::move(stream);
    return raw;
  }
  Stream* find(int number) {
    const auto found = all_.find(number);
    return found == all_.end() ? nullptr : found->second.get();
  }
  void forget(const Stream* stream) { all_.erase(stream->number); }
  void clear() { all_.clear(); }
  template <typename Call>
  void each(Call call) {
    for (auto& [number, stream] : all_) call(stream.get());
  }

 private:
  int next_ = 1;
  std::map<int, std::unique_ptr<Stream>> all_;
};
