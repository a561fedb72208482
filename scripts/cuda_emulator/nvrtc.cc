// A replacement of NVRTC: compiles a .cu text for the host with the script compile_kernels. The result is not PTX but a line that names
// the module for the emulated driver.
#include "driver.h"
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <sys/wait.h>
#include <unistd.h>

namespace {
enum Status { NVRTC_SUCCESS = 0, NVRTC_ERROR_INVALID_INPUT = 3, NVRTC_ERROR_COMPILATION = 6, NVRTC_ERROR_INTERNAL_ERROR = 11 };
struct Program {
    std::string source, image, log;
};

// Runs compile_kernels; its messages go to a file.
int compile(const std::string &source, const std::string &module, const std::string &log) {
    pid_t child = fork();
    if (child < 0) return -1;
    if (!child) {
        if (!freopen(log.c_str(), "w", stderr) || dup2(2, 1) < 0) _exit(127);
        execl(CUDA_EMULATOR_SCRIPTS "/compile_kernels", "compile_kernels", CUDA_EMULATOR_FOLDER, source.c_str(), module.c_str(), nullptr);
        _exit(127);
    }
    int status;
    return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
} // namespace

extern "C" {
int nvrtcCreateProgram(Program **program, const char *source, const char *, int headers, const char *const *, const char *const *) {
    if (headers) return NVRTC_ERROR_INVALID_INPUT;
    *program = new Program{source, {}, {}};
    return NVRTC_SUCCESS;
}
int nvrtcDestroyProgram(Program **program) { return delete *program, *program = nullptr, NVRTC_SUCCESS; }
int nvrtcCompileProgram(Program *program, int, const char *const *) {
    std::string path = std::filesystem::temp_directory_path() / "cuda_emulator.XXXXXX";
    if (!mkdtemp(path.data())) return NVRTC_ERROR_INTERNAL_ERROR;
    std::string source = path + "/kernels.cu", module = path + "/kernels.so", log = path + "/log";
    std::ofstream(source) << program->source;
    int failed = compile(source, module, log);
    std::stringstream text;
    text << std::ifstream(log).rdbuf();
    program->log = text.str();
    // A module is loaded at once, so that no file of it has to stay.
    if (!failed) program->image = add_module(module.c_str());
    for (const char *name : {"/kernels.cu", "/kernels.cc", "/kernels.so", "/log"}) unlink((path + name).c_str());
    rmdir(path.c_str());
    return program->image.empty() ? NVRTC_ERROR_COMPILATION : NVRTC_SUCCESS;
}
int nvrtcGetPTXSize(Program *program, size_t *size) { return *size = program->image.size() + 1, NVRTC_SUCCESS; }
int nvrtcGetPTX(Program *program, char *to) { return strcpy(to, program->image.c_str()), NVRTC_SUCCESS; }
int nvrtcGetProgramLogSize(Program *program, size_t *size) { return *size = program->log.size() + 1, NVRTC_SUCCESS; }
int nvrtcGetProgramLog(Program *program, char *to) { return strcpy(to, program->log.c_str()), NVRTC_SUCCESS; }
} // extern "C"
