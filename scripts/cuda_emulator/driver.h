// Functions that the parts of the emulated driver share.
#pragma once
#include <string>

// Counts a matrix product; returns whether to compute it.
bool emulated_product();

// Loads the kernels of a shared library as a module. Returns the image that represents it. On failure, returns an empty string and prints
// the reason on standard error.
std::string add_module(const char *path);
