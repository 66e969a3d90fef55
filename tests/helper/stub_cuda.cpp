// A libcuda.so.1 for tests: the eight entry points that the helper may ask, told what to say by
// the environment. STUB_INTEGRATED STUB_TOTAL STUB_INIT STUB_DEVICES STUB_ATTRIBUTES.
#include <cstdlib>
#include <cstring>
#include <string>

namespace {
long long told(const char* name, long long otherwise) {
  const char* text = std::getenv(name);
  return text ? std::strtoll(text, nullptr, 10) : otherwise;
}
constexpr int kInvalidValue = 1;
constexpr int kNoDevice = 100;
constexpr int kInvalidDevice = 101;
constexpr int kIntegrated = 18;
}  // namespace

extern "C" {
int cuInit(unsigned /*flags*/) {
  return static_cast<int>(told("STUB_INIT", 0));
}
int cuDriverGetVersion(int* version) { return *version = 13000, 0; }
int cuDeviceGetCount(int* count) { return *count = static_cast<int>(told("STUB_DEVICES", 1)), 0; }
int cuDeviceGet(int* device, int ordinal) {
  *device = ordinal;
  return told("STUB_DEVICES", 1) > ordinal ? 0 : kInvalidDevice;
}
int cuDeviceGetName(char* name, int length, int /*device*/) {
  std::strncpy(name, "Stub \"GB10\"", static_cast<size_t>(length));
  return 0;
}
int cuDeviceGetAttribute(int* value, int attribute, int /*device*/) {
  if (told("STUB_ATTRIBUTES", 1) == 0) return kInvalidValue;
  *value = attribute == kIntegrated ? static_cast<int>(told("STUB_INTEGRATED", 1)) : attribute % 2;
  return 0;
}
#ifndef WITHOUT_TOTAL_MEM
int cuDeviceTotalMem_v2(size_t* bytes, int /*device*/) {
  return *bytes = static_cast<size_t>(told("STUB_TOTAL", 130664886272)), 0;
}
#endif
int cuGetErrorName(int error, const char** name) {
  *name = error == kNoDevice ? "CUDA_ERROR_NO_DEVICE" : nullptr;
  return *name ? 0 : kInvalidValue;
}
}
