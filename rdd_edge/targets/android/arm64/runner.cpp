// Runs a .pte file on every sample of z.f32 (and label.i64), a batch at a time, and appends each result to x.f32.
//
//   runner MODEL.pte Z.f32 X.f32 N C H W THREADS [LABEL.i64]
//
// N is the artifact's batch size; the files are little-endian and hold a whole number of batches.
// Exit codes: 0 done, 2 wrong arguments or files, 3 the program does not load, 4 it does not run, 5 the CPU has SME.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

namespace executorch::extension::threadpool {
// The wheel has the library of these, and no header for them.
class ThreadPool {
 public:
  bool _unsafe_reset_threadpool(uint32_t threads);
};
ThreadPool* get_threadpool();
} // namespace executorch::extension::threadpool

using executorch::aten::ScalarType;
using executorch::extension::from_blob;
using executorch::extension::Module;
using executorch::runtime::Error;
using executorch::runtime::EValue;

namespace {

[[noreturn]] void fail(int code, const std::string& reason) {
  std::fprintf(stderr, "%s\n", reason.c_str());
  std::exit(code);
}

std::vector<char> content(const char* path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    fail(2, std::string("cannot read ") + path);
  }
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::string hexadecimal(Error error) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%x", static_cast<unsigned>(error));
  return text;
}

} // namespace

int main(int argc, char** argv) {
  if (argc != 9 && argc != 10) {
    fail(2, "usage: runner MODEL.pte Z.f32 X.f32 N C H W THREADS [LABEL.i64]");
  }
#if defined(__aarch64__)
  if (getauxval(AT_HWCAP2) & (1UL << 23)) { // HWCAP2_SME
    fail(5, "the CPU has SME");
  }
#endif
  std::vector<int> shape;
  size_t batch_bytes = sizeof(float);
  for (int i = 4; i < 8; ++i) {
    shape.push_back(std::atoi(argv[i]));
    batch_bytes *= static_cast<size_t>(shape.back());
  }
  const size_t label_bytes = static_cast<size_t>(shape[0]) * sizeof(int64_t);
  std::vector<char> z = content(argv[2]);
  std::vector<char> label = argc == 10 ? content(argv[9]) : std::vector<char>();
  if (batch_bytes == 0 || z.empty() || z.size() % batch_bytes != 0 ||
      (argc == 10 && label.size() != z.size() / batch_bytes * label_bytes)) {
    fail(2, "the input files do not hold a whole number of batches");
  }

  executorch::extension::threadpool::get_threadpool()->_unsafe_reset_threadpool(
      static_cast<uint32_t>(std::atoi(argv[8])));
  Module module(argv[1]);
  if (Error error = module.load_forward(); error != Error::Ok) {
    fail(3, "the program does not load: error " + hexadecimal(error));
  }
  std::ofstream out(argv[3], std::ios::binary);
  for (size_t batch = 0; batch < z.size() / batch_bytes; ++batch) {
    auto z_tensor = from_blob(z.data() + batch * batch_bytes, shape, ScalarType::Float);
    std::vector<EValue> inputs{EValue(z_tensor)};
    executorch::extension::TensorPtr label_tensor; // outlives the call, since an EValue does not own it
    if (argc == 10) {
      label_tensor = from_blob(label.data() + batch * label_bytes, {shape[0]}, ScalarType::Long);
      inputs.emplace_back(label_tensor);
    }
    auto result = module.forward(inputs);
    if (!result.ok()) {
      fail(4, "the program does not run: error " + hexadecimal(result.error()));
    }
    const auto& x = result->at(0).toTensor();
    if (x.scalar_type() != ScalarType::Float || x.nbytes() != batch_bytes) {
      fail(4, "the program's output is not float32 of the input's shape");
    }
    if (!out.write(static_cast<const char*>(x.const_data_ptr()), static_cast<std::streamsize>(x.nbytes())).flush()) {
      fail(2, std::string("cannot write ") + argv[3]);
    }
  }
  return 0;
}
