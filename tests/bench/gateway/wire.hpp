// HTTP/1.1 as far as a load program needs it: a head, a body in any framing, marked events. Pure.
#pragma once

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

constexpr char kMark = '~';                 // stands once in each event that counts
constexpr std::string_view kName = "gwb:";  // before a stream's number, in its request's body
constexpr std::size_t kDigits = 8;

inline bool same_word(std::string_view a, std::string_view b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](unsigned char x, unsigned char y) {
    return std::tolower(x) == std::tolower(y);
  });
}

// The value of one header, "" when it is not there.
inline std::string_view header(std::string_view head, std::string_view name) {
  std::size_t start = head.find("\r\n");
  while (start != std::string_view::npos && start + 2 < head.size()) {
    start += 2;
    const std::size_t end = head.find("\r\n", start);
    const std::string_view line = head.substr(start, end == std::string_view::npos ? end : end - start);
    const std::size_t colon = line.find(':');
    if (colon != std::string_view::npos && same_word(line.substr(0, colon), name)) {
      std::string_view value = line.substr(colon + 1);
      while (!value.empty() && value.front() == ' ') value.remove_prefix(1);
      return value;
    }
    start = end;
  }
  return {};
}

// Takes the framing off a body that comes in pieces.
class Body {
 public:
  enum class Framing { kNone, kLength, kChunked, kUntilClose };

  void begin(std::string_view head, bool is_reply) {
    const std::string_view length = header(head, "content-length");
    left_ = 0;
    step_ = Step::kSize;
    line_.clear();
    if (same_word(header(head, "transfer-encoding"), "chunked")) {
      framing_ = Framing::kChunked;
    } else if (!length.empty()) {
      framing_ = Framing::kLength;
      left_ = std::stoull(std::string(length));
    } else {
      framing_ = is_reply ? Framing::kUntilClose : Framing::kNone;
    }
    done_ = framing_ == Framing::kNone || (framing_ == Framing::kLength && left_ == 0);
  }

  bool done() const { return done_; }

  // Hands the content in `data` to `take`; returns how many bytes of `data` were the body's.
  template <typename Take>
  std::size_t feed(std::string_view data, Take take) {
    if (framing_ == Framing::kChunked) return feed_chunks(data, take);
    if (framing_ == Framing::kUntilClose) {
      take(data);
      return data.size();
    }
    const std::size_t part = std::min<std::size_t>(data.size(), left_);
    take(data.substr(0, part));
    left_ -= part;
    done_ = left_ == 0;
    return part;
  }

 private:
  enum class Step { kSize, kData, kDataEnd, kTrailer };

  template <typename Take>
  std::size_t feed_chunks(std::string_view data, Take take) {
    std::size_t at = 0;
    while (at < data.size() && !done_) {
      if (step_ == Step::kData) {
        const std::size_t part = std::min<std::size_t>(data.size() - at, left_);
        take(data.substr(at, part));
        at += part;
        left_ -= part;
        if (left_ == 0) step_ = Step::kDataEnd;
        continue;
      }
      const char c = data[at++];
      if (c != '\n') {
        if (c != '\r') line_.push_back(c);
        continue;
      }
      end_of_line();
    }
    return at;
  }

  void end_of_line() {
    if (step_ == Step::kSize) {
      left_ = std::stoull(line_, nullptr, 16);
      step_ = left_ == 0 ? Step::kTrailer : Step::kData;
    } else if (step_ == Step::kDataEnd) {
      step_ = Step::kSize;
    } else if (line_.empty()) {
      done_ = true;
    }
    line_.clear();
  }

  Framing framing_ = Framing::kNone;
  Step step_ = Step::kSize;
  std::uint64_t left_ = 0;
  std::string line_;
  bool done_ = true;
};

// Counts server-sent events that hold the mark, however they are cut.
class MarkedEvents {
 public:
  std::size_t feed(std::string_view data) {
    std::size_t ended = 0;
    for (const char c : data) {
      if (c == '\r') continue;
      if (c == kMark) marked_ = true;
      if (c == '\n' && last_ == '\n' && marked_) {
        ++ended;
        marked_ = false;
      }
      last_ = c;
    }
    return ended;
  }

 private:
  bool marked_ = false;
  char last_ = 0;
};

// The number of the stream that a request's body names, -1 while it is not there yet.
inline int stream_number(std::string_view body, std::size_t from) {
  const std::size_t found = body.find(kName, from);
  if (found == std::string_view::npos || found + kName.size() + kDigits > body.size()) return -1;
  return std::stoi(std::string(body.substr(found + kName.size(), kDigits)));
}
